"""The macros that Gradferry's own BUILD files use.

They hold the compiler flags in one place and find sources by glob, so that a new
file needs no change to a BUILD file.
"""

load("@gradferry_torch//:settings.bzl", TORCH_VERSION = "VERSION")
load("@rules_cc//cc:defs.bzl", "cc_binary", "cc_library", "cc_test")

# libtorch's headers ask for C++20 from 2.12 on; before, C++17 is the standard
# that all supported versions share.
_CXX_STANDARD = "c++20" if TORCH_VERSION >= (2, 12) else "c++17"

# What only GCC knows. GNU-unique symbols would tie two copies of the library in one
# process together and keep it from unloading. The warnings are wrong here:
# stringop-overflow believes that libtorch's intrusive_ptr counts references in the
# bytes of a null pointer once it is inlined, dangling-pointer does not see that a
# scope object's destructor takes its address back, and maybe-uninitialized does not
# see that std::optional guards its value.
_GCC_COPTS = select({
    "//bazel:compiler_is_clang": [],
    "//conditions:default": [
        "-fno-gnu-unique",
        "-Wno-stringop-overflow",
        "-Wno-dangling-pointer",
        "-Wno-maybe-uninitialized",
    ],
})

GF_COPTS = ["-std=" + _CXX_STANDARD, "-fvisibility=hidden"] + _GCC_COPTS

GF_C_COPTS = ["-std=c11", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wpedantic"]

# A shared library of ours resolves every symbol at link time.
_SHARED_LINKOPTS = ["-Wl,-z,defs", "-Wl,-z,relro,-z,now"]

_TEST_ENV = {
    # Tests run side by side; libtorch's own thread pool would only fight them.
    "OMP_NUM_THREADS": "1",
}

def gf_library(name, deps = [], srcs = None, hdrs = None, copts = [], **kwargs):
    """A library of one folder: every .cc and .h in it.

    Args:
      name: the folder's name, by custom.
      deps: targets whose headers it may include.
      srcs: sources, all .cc files by default.
      hdrs: headers, all .h files by default.
      copts: flags besides the project's own.
      **kwargs: passed on to cc_library.
    """
    cc_library(
        name = name,
        srcs = native.glob(["*.cc"], allow_empty = True) if srcs == None else srcs,
        hdrs = native.glob(["*.h"], allow_empty = True) if hdrs == None else hdrs,
        copts = GF_COPTS + copts,
        linkstatic = True,
        deps = deps,
        **kwargs
    )

def gf_transport_plugin(name, deps = []):
    """A transport plugin from the sources of its folder.

    Makes libgradferry_transport_<name>.so, which exports its entry symbol and
    nothing else, and the library <name> for tests that look inside.

    Args:
      name: the transport's name in a configuration.
      deps: what it needs besides the two C headers.
    """
    gf_library(
        name = name,
        # The entry symbol is looked up by dlsym, never by the linker.
        alwayslink = True,
        visibility = ["//tests:__subpackages__"],
        deps = ["//:gradferry_c"] + deps,
    )
    cc_binary(
        name = "libgradferry_transport_{}.so".format(name),
        additional_linker_inputs = ["//bazel:transport_plugin.lds"],
        linkopts = _SHARED_LINKOPTS + [
            "-Wl,--version-script=$(location //bazel:transport_plugin.lds)",
        ],
        linkshared = True,
        visibility = ["//visibility:public"],
        deps = [":" + name],
    )

def gf_linked_library(name, soname, version_script, deps, **kwargs):
    """A shared library with a soname, a version script and no way to unload it.

    Args:
      name: the file's name.
      soname: the name that programs linked with it will ask for.
      version_script: label of the linker script that lists the exports.
      deps: libraries that make it up.
      **kwargs: passed on to cc_binary.
    """
    cc_binary(
        name = name,
        additional_linker_inputs = [version_script],
        linkopts = _SHARED_LINKOPTS + [
            "-Wl,-soname," + soname,
            "-Wl,-z,nodelete",
            "-Wl,--version-script=$(location {})".format(version_script),
        ],
        linkshared = True,
        deps = deps,
        **kwargs
    )

def gf_test(name, srcs, deps = [], data = [], plugins = [], env = {}, size = "small", **kwargs):
    """A GoogleTest program that finds its plugins and the sanitizers' lists.

    Args:
      name: the target's name.
      srcs: its sources.
      deps: what it tests; GoogleTest with its main is added.
      data: files it reads, besides the plugins.
      plugins: names of the transports it loads. Only those are built for it, so
        that a test on sim needs no TensorPipe.
      env: variables besides the usual.
      size: Bazel's test size, which sets the time limit.
      **kwargs: passed on to cc_test.
    """
    full_env = dict(_TEST_ENV)
    if plugins:
        # Relative to the runfiles folder, where tests start.
        full_env["GRADFERRY_PLUGIN_PATH"] = ":".join(["plugins/" + p for p in plugins])
    full_env.update(env)
    cc_test(
        name = name,
        size = size,
        srcs = srcs,
        copts = GF_COPTS,
        data = data + ["//tests/sanitizers:suppressions"] + [
            "//plugins/{0}:libgradferry_transport_{0}.so".format(p)
            for p in plugins
        ],
        env = full_env,
        linkstatic = True,
        deps = deps + ["@gradferry_gtest//:gtest_main"],
        **kwargs
    )

def gf_tests(folder, deps, **kwargs):
    """One test target for each _test.cc file of a folder.

    A target is named for its file, less .cc. What else lies in the folder, less
    programs (_main.cc), is a library that its tests share.

    Args:
      folder: a folder below the package, or "." for the package itself.
      deps: what the tests use.
      **kwargs: passed on to gf_test.
    """
    prefix = "" if folder == "." else folder + "/"
    helpers = native.glob(
        [prefix + "*.cc"],
        allow_empty = True,
        exclude = ["**/*_test.cc", "**/*_main.cc"],
    )
    headers = native.glob([prefix + "*.h"], allow_empty = True)
    shared = []
    if helpers or headers:
        shared = [prefix + "helpers"]
        gf_library(
            name = shared[0],
            testonly = True,
            srcs = helpers,
            hdrs = headers,
            deps = deps + ["@gradferry_gtest//:gtest_main"],
        )
    for src in native.glob([prefix + "*_test.cc"], allow_empty = True):
        gf_test(
            name = src[:-len(".cc")],
            srcs = [src],
            deps = deps + shared,
            **kwargs
        )

def gf_test_programs(deps):
    """One program for each _main.cc file of a folder, named for it, less .cc.

    Args:
      deps: what the programs use; the folder's helpers among them.

    Returns:
      Their labels.
    """
    names = [src[:-len(".cc")] for src in native.glob(["*_main.cc"], allow_empty = True)]
    for name in names:
        cc_binary(
            name = name,
            testonly = True,
            srcs = [name + ".cc"],
            copts = GF_COPTS,
            linkstatic = True,
            deps = deps,
        )
    return [":" + name for name in names]
