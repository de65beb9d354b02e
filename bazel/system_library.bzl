"""A repository rule for one library that is installed on this machine.

It looks in the folder that the user's environment variable names, else in /usr,
and makes a repository with one cc_library, whose headers count as system headers.
When the library is missing the repository is made all the same; its target then
stops the build with one sentence, so that only those who use it are stopped.
"""

_MISSING_BZL = """\
def _missing_impl(ctx):
    fail(ctx.attr.message)

missing = rule(
    implementation = _missing_impl,
    attrs = {"message": attr.string()},
    provides = [CcInfo],
)
"""

_MISSING_BUILD = """\
load(":missing.bzl", "missing")

missing(
    name = "{target}",
    message = {message},
    visibility = ["//visibility:public"],
)
"""

_FOUND_BUILD = """\
load("@rules_cc//cc:defs.bzl", "cc_library")

cc_library(
    name = "{target}",
    hdrs = glob(["include/**"]),
    defines = {defines},
    includes = {includes},
    linkopts = {linkopts},
    visibility = ["//visibility:public"],
)
"""

def _lib_dirs(rctx, prefix):
    """The folders under a prefix that may hold libraries, likeliest first."""
    compiler = rctx.os.environ.get("CC", "") or "cc"
    triplet = ""
    if rctx.which(compiler):
        triplet = rctx.execute([rctx.which(compiler), "-print-multiarch"]).stdout.strip()
    if not triplet:
        triplet = rctx.execute(["uname", "-m"]).stdout.strip() + "-linux-gnu"
    return [prefix + "/lib/" + triplet, prefix + "/lib", prefix + "/lib64"]

def _find_lib(rctx, dirs, lib):
    for folder in dirs:
        for suffix in [".so", ".a"]:
            if rctx.path("{}/lib{}{}".format(folder, lib, suffix)).exists:
                return folder
    return None

def _read_version(rctx, path):
    """Major and minor from a header of #define X_MAJOR n lines, or (0, 0)."""
    numbers = {"MAJOR": 0, "MINOR": 0}
    if rctx.path(path).exists:
        for line in rctx.read(path).splitlines():
            words = [w for w in line.split(" ") if w]
            if len(words) == 3 and words[0] == "#define" and words[2].isdigit():
                for key in ["MAJOR", "MINOR"]:
                    if words[1].endswith("_VERSION_" + key):
                        numbers[key] = int(words[2])
    return numbers["MAJOR"], numbers["MINOR"]

def _impl(rctx):
    attr = rctx.attr
    chosen = rctx.os.environ.get(attr.env, "")
    prefix = chosen or "/usr"
    include = prefix + "/include"
    lib_dirs = _lib_dirs(rctx, prefix)

    lacking = []
    if not rctx.path(include + "/" + attr.probe_header).exists:
        lacking.append(include + "/" + attr.probe_header)
    found_dirs = []
    for lib in attr.libs:
        folder = _find_lib(rctx, lib_dirs, lib)
        if not folder:
            lacking.append("lib{} in {}".format(lib, ", ".join(lib_dirs)))
        elif folder not in found_dirs:
            found_dirs.append(folder)

    version = (0, 0)
    if not lacking:
        for header in attr.version_headers:
            version = _read_version(rctx, include + "/" + header)
            if version != (0, 0):
                break
    rctx.file(
        "settings.bzl",
        "VERSION = ({}, {})\n".format(version[0], version[1]),
        executable = False,
    )

    if lacking:
        message = "{what} is missing: looked for {lacking}; install it with: apt-get install {apt}, or name its folder in {env}{now}.".format(
            what = attr.what,
            lacking = " and for ".join(lacking),
            apt = attr.apt_package,
            env = attr.env,
            now = " (now {})".format(chosen) if chosen else "",
        )
        rctx.file("missing.bzl", _MISSING_BZL, executable = False)
        rctx.file("BUILD.bazel", _MISSING_BUILD.format(
            target = attr.target,
            message = repr(message),
        ), executable = False)
        return

    for name in attr.header_dirs:
        if rctx.path(include + "/" + name).exists:
            rctx.symlink(include + "/" + name, "include/" + name)

    linkopts = []
    if chosen:
        for folder in found_dirs:
            linkopts += ["-L" + folder, "-Wl,-rpath," + folder]
    linkopts += ["-l" + lib for lib in attr.libs] + attr.extra_linkopts

    rctx.file("BUILD.bazel", _FOUND_BUILD.format(
        target = attr.target,
        defines = repr(attr.defines),
        includes = repr(["include"] + ["include/" + i for i in attr.extra_includes]),
        linkopts = repr(linkopts),
    ), executable = False)

system_library = repository_rule(
    implementation = _impl,
    attrs = {
        "apt_package": attr.string(mandatory = True, doc = "the Debian package that has it"),
        "defines": attr.string_list(),
        "env": attr.string(mandatory = True, doc = "the variable by which a user names a prefix"),
        "extra_includes": attr.string_list(doc = "further include folders below include/"),
        "extra_linkopts": attr.string_list(),
        "header_dirs": attr.string_list(mandatory = True, doc = "folders below include/"),
        "libs": attr.string_list(doc = "names as given to -l; none for header-only"),
        "probe_header": attr.string(mandatory = True, doc = "its presence shows the headers are there"),
        "target": attr.string(mandatory = True),
        "version_headers": attr.string_list(doc = "the first that tells sets VERSION in settings.bzl"),
        "what": attr.string(mandatory = True, doc = "the library's name in messages"),
    },
    local = True,
    environ = [
        "CC",
        "GRADFERRY_BENCHMARK",
        "GRADFERRY_CLI11",
        "GRADFERRY_GTEST",
        "GRADFERRY_NLOHMANN_JSON",
        "GRADFERRY_OPENSSL",
        "GRADFERRY_TENSORPIPE",
        "GRADFERRY_THRIFT",
        "GRADFERRY_TOMLPLUSPLUS",
        "GRADFERRY_TORCH",
    ],
)
