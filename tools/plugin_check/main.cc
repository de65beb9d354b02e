// The check as a program of its own.
#include "tools/plugin_check/plugin_check.h"

int main(int argc, char** argv) { return gradferry::check::PluginCheckMain(argc, argv); }
