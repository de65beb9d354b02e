"""Repository rules for Bazel's own rule sets, as Debian packages them.

Bazel would fetch these from the network. Debian ships them under
/usr/share/bazel; the rules here take them from there.
"""

# Debian 12 pairs Bazel 4.2.3 with a rules_cc that loads use_cpp_toolchain, which
# came with Bazel 5. The function returns a list of toolchain types; this is what
# it returned in its first version.
_LOADS_NEW_NAME = "\"find_cpp_toolchain\", \"use_cpp_toolchain\")"
_LOADS_OLD_NAME = "\"find_cpp_toolchain\")"
_CALL = "use_cpp_toolchain()"
_CALL_REPLACEMENT = "[\"@bazel_tools//tools/cpp:toolchain_type\"]"

_PATCHED_FILES = [
    "cc/private/rules_impl/cc_flags_supplier.bzl",
    "cc/private/rules_impl/compiler_flag.bzl",
]

def _has_use_cpp_toolchain(rctx):
    utils = rctx.path(Label("@bazel_tools//tools/cpp:toolchain_utils.bzl"))
    return "def use_cpp_toolchain" in rctx.read(utils)

def _patch_for_old_bazel(rctx):
    for name in _PATCHED_FILES:
        if not rctx.path(name).exists:
            continue
        text = rctx.read(name)
        text = text.replace(_LOADS_NEW_NAME, _LOADS_OLD_NAME)
        text = text.replace(_CALL, _CALL_REPLACEMENT)
        rctx.file(name, text, executable = False)

def _debian_bazel_package_impl(rctx):
    chosen = rctx.os.environ.get(rctx.attr.env, "")
    places = [chosen] if chosen else rctx.attr.places
    for place in places:
        if rctx.path(place).exists:
            # A copy, not links: two files may have to change.
            result = rctx.execute(["cp", "-RL", place + "/.", "."])
            if result.return_code != 0:
                fail("Copying {} failed: {}".format(place, result.stderr))
            if not _has_use_cpp_toolchain(rctx):
                _patch_for_old_bazel(rctx)
            return
    fail("Bazel's {} was looked for in {} and is not there; install it with: apt-get install {}, or name its folder in {}.".format(
        rctx.name,
        ", ".join(places),
        rctx.attr.apt_package,
        rctx.attr.env,
    ))

debian_bazel_package = repository_rule(
    implementation = _debian_bazel_package_impl,
    attrs = {
        "apt_package": attr.string(mandatory = True),
        "env": attr.string(mandatory = True),
        "places": attr.string_list(mandatory = True),
    },
    local = True,
    environ = [
        "GRADFERRY_PLATFORMS",
        "GRADFERRY_RULES_CC",
        "GRADFERRY_RULES_JAVA",
        "GRADFERRY_RULES_LICENSE",
        "GRADFERRY_RULES_PROTO",
        "GRADFERRY_RULES_PYTHON",
        "GRADFERRY_SKYLIB",
    ],
    doc = "One of Bazel's rule sets from the system's packages.",
)

def _coverage_tools_stub_impl(rctx):
    rctx.file("BUILD.bazel", """\
# Every test rule names these two, though they run under `bazel coverage` only.
package(default_visibility = ["//visibility:public"])

filegroup(name = "coverage_report_generator")

filegroup(name = "lcov_merger")
""", executable = False)

coverage_tools_stub = repository_rule(
    implementation = _coverage_tools_stub_impl,
    doc = "Stands in for tools that Bazel would download though nobody asked for coverage.",
)
