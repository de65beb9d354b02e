// See ways.h.
#include "tests/support/c_abi/ways.h"

#include <sys/file.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <stdexcept>

#include "tests/support/c_abi/process.h"

namespace gf {
namespace {

constexpr char kFolderVariable[] = "GF_TEST_CERTIFICATES";

// Where the certificates are; made by the first process of the test, which tells its children.
std::string Certificates() {
  if (const char* folder = std::getenv(kFolderVariable)) return folder;
  static const TemporaryFolder folder;
  setenv(kFolderVariable, folder.path().c_str(), 1);
  return folder.path();
}

void MakeCertificate(const std::string& folder, const std::string& worker) {
  // One at a time, for the script keeps a list; flock(1) would be one more program to have.
  const std::string lock = folder + "/lock";
  const std::ofstream created(lock, std::ios::app);
  FILE* const held = fopen(lock.c_str(), "r");
  if (held == nullptr || flock(fileno(held), LOCK_EX) != 0) throw std::runtime_error("cannot lock " + lock);
  const std::string name = folder + "/" + worker;
  if (access((name + ".pem").c_str(), R_OK) != 0 &&
      std::system(("tools/make_test_ca.sh '" + folder + "' '" + worker + "' >&2").c_str()) != 0) {
    fclose(held);
    throw std::runtime_error("tools/make_test_ca.sh failed for " + worker);
  }
  fclose(held);
}

}  // namespace

std::string TransportOf(const std::string& way) { return way.substr(0, way.find('_')); }

void UseWay(const Config& config, const std::string& way, const std::string& worker) {
  Set(config, "transport.name", TransportOf(way));
  if (way == "thrift_unix") Set(config, "transport.thrift.address", "unix://");
  if (way == "thrift_tcp") Set(config, "transport.thrift.address", "tcp://127.0.0.1:0");
  if (way != "thrift_tls") return;
  const std::string folder = Certificates();
  MakeCertificate(folder, worker);
  Set(config, "transport.thrift.address", "tls://127.0.0.1:0");
  Set(config, "transport.thrift.ca", folder + "/ca.pem");
  Set(config, "transport.thrift.certificate", folder + "/" + worker + ".pem");
  Set(config, "transport.thrift.key", folder + "/" + worker + ".key");
}

}  // namespace gf
