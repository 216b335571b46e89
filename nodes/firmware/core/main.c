#include "hal.h"
#include "node.h"

#ifndef PIO_UNIT_TESTING // a test brings its own
int main(void) {
    noria_board_init();
    noria_node_boot();
    for (;;) {
        noria_node_step();
    }
}
#endif
