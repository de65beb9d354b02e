// The cut run of a program: its functions on the workers of a group, in one context.
#pragma once

#include "tests/property/group.h"
#include "tests/property/program.h"
#include "tests/property/reference.h"

namespace gradferry::property {

// Registers the handlers through which programs run. Once per group.
void AddHandlers(Group& group);

// Throws Failed when a call or a pass fails, Stuck when one does not end. The context has been released
// everywhere when it returns or throws Failed.
Outcome RunCut(const Program& program, Group& group);

}  // namespace gradferry::property
