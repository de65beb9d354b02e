"""Declares every repository that Gradferry's targets use.

A project that depends on Gradferry calls gradferry_dependencies() in its own
WORKSPACE. Repositories which that project has already declared are left alone,
so its rules_cc or GoogleTest wins over the system's. Nothing here needs a
network; each rule looks on this machine, in the place that an environment
variable names or in the system's own.
"""

load("//bazel:bazel_rules.bzl", "coverage_tools_stub", "debian_bazel_package")
load("//bazel:system_library.bzl", "system_library")

def _maybe(rule, name, **kwargs):
    if not native.existing_rule(name):
        rule(name = name, **kwargs)

def gradferry_dependencies():
    """Libraries first, then what Bazel itself asks for."""
    _maybe(
        system_library,
        name = "gradferry_torch",
        what = "libtorch",
        env = "GRADFERRY_TORCH",
        apt_package = "libtorch-dev",
        target = "torch",
        probe_header = "ATen/ATen.h",
        header_dirs = ["ATen", "c10", "caffe2", "torch"],
        extra_includes = ["torch/csrc/api/include"],
        # libtorch.so holds no code on a CPU-only build, yet in a CUDA build it is
        # what pulls the CUDA backend in.
        libs = ["torch", "torch_cpu", "c10"],
        version_headers = [
            "torch/headeronly/version.h",
            "torch/csrc/api/include/torch/version.h",
        ],
    )
    _maybe(
        system_library,
        name = "gradferry_tensorpipe",
        what = "TensorPipe",
        env = "GRADFERRY_TENSORPIPE",
        apt_package = "libtensorpipe-dev",
        target = "tensorpipe",
        probe_header = "tensorpipe/tensorpipe.h",
        header_dirs = ["tensorpipe"],
        libs = ["tensorpipe"],
    )
    # OpenSSL without TLS, which is all that the library itself needs of it.
    _maybe(
        system_library,
        name = "gradferry_crypto",
        what = "OpenSSL",
        env = "GRADFERRY_OPENSSL",
        apt_package = "libssl-dev",
        target = "crypto",
        probe_header = "openssl/hmac.h",
        header_dirs = ["openssl"],
        libs = ["crypto"],
    )
    _maybe(
        system_library,
        name = "gradferry_thrift",
        what = "Thrift",
        env = "GRADFERRY_THRIFT",
        apt_package = "libthrift-dev libboost-dev",
        target = "thrift",
        probe_header = "thrift/Thrift.h",
        header_dirs = ["thrift"],
        libs = ["thrift"],
    )
    _maybe(
        system_library,
        name = "gradferry_gtest",
        what = "GoogleTest",
        env = "GRADFERRY_GTEST",
        apt_package = "libgtest-dev libgmock-dev",
        target = "gtest_main",
        probe_header = "gmock/gmock.h",
        header_dirs = ["gtest", "gmock"],
        libs = ["gmock_main", "gmock", "gtest"],
        extra_linkopts = ["-pthread"],
    )
    _maybe(
        system_library,
        name = "gradferry_benchmark",
        what = "Google Benchmark",
        env = "GRADFERRY_BENCHMARK",
        apt_package = "libbenchmark-dev",
        target = "benchmark",
        probe_header = "benchmark/benchmark.h",
        header_dirs = ["benchmark"],
        libs = ["benchmark"],
        extra_linkopts = ["-pthread"],
    )
    _maybe(
        system_library,
        name = "gradferry_openssl",
        what = "OpenSSL",
        env = "GRADFERRY_OPENSSL",
        apt_package = "libssl-dev",
        target = "openssl",
        probe_header = "openssl/ssl.h",
        header_dirs = ["openssl"],
        libs = ["ssl", "crypto"],
    )
    _maybe(
        system_library,
        name = "gradferry_tomlplusplus",
        what = "toml++",
        env = "GRADFERRY_TOMLPLUSPLUS",
        apt_package = "libtomlplusplus-dev",
        target = "tomlplusplus",
        probe_header = "toml++/toml.h",
        header_dirs = ["toml++"],
        # Header-only, so that libgradferry.so needs no second library for it.
        defines = ["TOML_HEADER_ONLY=1"],
    )
    _maybe(
        system_library,
        name = "gradferry_nlohmann_json",
        what = "nlohmann json",
        env = "GRADFERRY_NLOHMANN_JSON",
        apt_package = "nlohmann-json3-dev",
        target = "nlohmann_json",
        probe_header = "nlohmann/json.hpp",
        header_dirs = ["nlohmann"],
    )
    _maybe(
        system_library,
        name = "gradferry_cli11",
        what = "CLI11",
        env = "GRADFERRY_CLI11",
        apt_package = "libcli11-dev",
        target = "cli11",
        probe_header = "CLI/CLI.hpp",
        header_dirs = ["CLI"],
    )

    _maybe(
        debian_bazel_package,
        name = "rules_cc",
        env = "GRADFERRY_RULES_CC",
        places = ["/usr/share/bazel/rules/cc"],
        apt_package = "bazel-rules-cc",
    )
    _maybe(
        debian_bazel_package,
        name = "rules_java",
        env = "GRADFERRY_RULES_JAVA",
        places = ["/usr/share/bazel/rules/java"],
        apt_package = "bazel-rules-java",
    )
    _maybe(
        debian_bazel_package,
        name = "platforms",
        env = "GRADFERRY_PLATFORMS",
        places = ["/usr/share/bazel/tools/platforms", "/usr/share/bazel/platforms"],
        apt_package = "bazel-platforms",
    )
    _maybe(
        debian_bazel_package,
        name = "bazel_skylib",
        env = "GRADFERRY_SKYLIB",
        places = ["/usr/share/bazel/tools/skylib"],
        apt_package = "bazel-skylib",
    )

    # Only Bazel 7 asks for these three; with it they come as its dependencies.
    for language in ["license", "proto", "python"]:
        _maybe(
            debian_bazel_package,
            name = "rules_" + language,
            env = "GRADFERRY_RULES_" + language.upper(),
            places = ["/usr/share/bazel/rules/" + language],
            apt_package = "bazel-rules-" + language,
        )

    _maybe(coverage_tools_stub, name = "remote_coverage_tools")
