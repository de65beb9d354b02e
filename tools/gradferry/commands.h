// The commands of `gradferry`. Each adds its subcommand with options, examples and a callback; what the callback
// returns is the exit status: 0 all is well, 1 it is not; 2 is for wrong arguments. Each sees the public headers only.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace gradferry::command {

// A command's body: its exit status. Throws Failure.
using Body = std::function<int()>;
// Where the chosen command puts its body.
using Chosen = Body*;

void AddConfig(CLI::App& app, Chosen chosen);
void AddDoctor(CLI::App& app, Chosen chosen);
void AddPing(CLI::App& app, Chosen chosen);
void AddTop(CLI::App& app, Chosen chosen);
void AddTrace(CLI::App& app, Chosen chosen);

}  // namespace gradferry::command
