"""A shared library under its three names: libx.so, libx.so.0, libx.so.0.1.0.

A program links with the first and asks for the second, the soname, when it runs.
Both are files here, so that a target which lists the library in its srcs or data
finds what it needs in its runfiles.
"""

load("//bazel:rules.bzl", "gf_linked_library")

def _names_impl(ctx):
    links = []
    for name in [ctx.label.name, ctx.attr.soname]:
        link = ctx.actions.declare_file(name)
        ctx.actions.symlink(output = link, target_file = ctx.file.library)
        links.append(link)
    return [DefaultInfo(
        files = depset(links),
        runfiles = ctx.runfiles(files = links),
    )]

_names = rule(
    implementation = _names_impl,
    attrs = {
        "library": attr.label(allow_single_file = True, mandatory = True),
        "soname": attr.string(mandatory = True),
    },
)

def gf_shared_library(name, abi_version, version, version_script, deps):
    """A shared library and its links.

    Args:
      name: the name to link with, lib<x>.so.
      abi_version: what follows the name in the soname.
      version: what follows the name in the real file's name.
      version_script: label of the linker script that lists the exports.
      deps: libraries that make it up.
    """
    soname = "{}.{}".format(name, abi_version)
    real_name = "{}.{}".format(name, version)
    gf_linked_library(
        name = real_name,
        soname = soname,
        version_script = version_script,
        visibility = ["//visibility:public"],
        deps = deps,
    )
    _names(
        name = name,
        library = ":" + real_name,
        soname = soname,
        visibility = ["//visibility:public"],
    )
