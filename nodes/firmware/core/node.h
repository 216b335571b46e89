/// One node: boot, wakes, and the valve between them.
#ifndef NORIA_NODE_H
#define NORIA_NODE_H

#include <stdint.h>

/// Restores what was remembered and picks the model; call once the board runs. Returns without a
/// valid settings page only to be called again later.
void noria_node_boot(void);

/// Sleeps until the next wake, closing the valve on time meanwhile; then one wake.
void noria_node_step(void);

#endif
