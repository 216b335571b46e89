/// One look at the field: from volts and bus answers to a reading.
#ifndef NORIA_SENSORS_H
#define NORIA_SENSORS_H

#include "noria_shared.h"

/// Powers the sensors, reads them all, and switches them off. A sensor that does not answer or
/// stands at a rail is NORIA_NO_VALUE.
void noria_sensors_read(noria_reading_t *reading);

#endif
