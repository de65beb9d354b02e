// What a plugin in C cannot do by itself.
#include <stdexcept>

extern "C" void throw_something();
extern "C" void throw_something() { throw std::runtime_error("thrown"); }
