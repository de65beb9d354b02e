/* The three roles of the demo. Each opens a worker, does its part, and returns when all is well; when something is not,
 * it ends the process with a reason. */
#ifndef GRADFERRY_EXAMPLES_ROLES_H_
#define GRADFERRY_EXAMPLES_ROLES_H_

#include "support.h"

/* Holds the data and the loss, and trains the model that the stages hold. */
void run_trainer(const struct settings* settings);

/* Holds some of the layers and their optimizer, and answers the trainer until it says stop. */
void run_stage(const struct settings* settings, int rank);

#endif
