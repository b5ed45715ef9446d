// What does not depend on the features' type.
#include "transpose.cuh"
