#include "plugins/thrift/tls_context.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include <algorithm>

namespace gradferry::thrift {
namespace {

Status Unusable(const std::string& key, const std::string& file) {
  return {GF_INVALID_ARGUMENT, "transport.thrift." + key + ": cannot use " + file + ": " + TakeTlsError()};
}

void CheckKeyPermissions(const Shared& shared, const std::string& file) {
  struct stat found {};
  if (::stat(file.c_str(), &found) != 0 || (found.st_mode & 077) == 0) return;
  shared.Log(LogLevel::kWarning, "transport.thrift.key: other users may open " + file + "; chmod 600 mends it");
}

}  // namespace

std::string TakeTlsError() {
  const unsigned long error = ERR_get_error();
  ERR_clear_error();
  if (error == 0) return "no reason was given";
  const char* reason = ERR_reason_error_string(error);
  return reason != nullptr ? reason : "error " + std::to_string(error);
}

Status TlsContext::Create(const Shared& shared, std::unique_ptr<TlsContext>* out) {
  const Options& options = shared.options;
  for (const auto& [key, value] :
       {std::pair{"ca", &options.ca}, {"certificate", &options.certificate}, {"key", &options.key}}) {
    if (value->empty()) {
      return {GF_INVALID_ARGUMENT, std::string("tls:// needs transport.thrift.") + key + ", a file in PEM format"};
    }
  }
  CheckKeyPermissions(shared, options.key);
  std::unique_ptr<TlsContext> context(new TlsContext);
  ERR_clear_error();
  if (Status status = context->Load(options); !status.ok()) return status;
  context->allow_ = options.allow;
  *out = std::move(context);
  return {};
}

Status TlsContext::Load(const Options& options) {
  context_.reset(SSL_CTX_new(TLS_method()));
  SSL_CTX* ctx = context_.get();
  if (ctx == nullptr) return {GF_INTERNAL, "OpenSSL does not work: " + TakeTlsError()};
  SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION);
  SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  SSL_CTX_set_num_tickets(ctx, 0);
  SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  // Whole records with one call of the system, not their five bytes of header first.
  SSL_CTX_set_read_ahead(ctx, 1);
  SSL_CTX_set_default_read_buffer_len(ctx, 64 * 1024);

  if (SSL_CTX_load_verify_file(ctx, options.ca.c_str()) != 1) return Unusable("ca", options.ca);
  if (SSL_CTX_use_certificate_chain_file(ctx, options.certificate.c_str()) != 1) {
    return Unusable("certificate", options.certificate);
  }
  if (SSL_CTX_use_PrivateKey_file(ctx, options.key.c_str(), SSL_FILETYPE_PEM) != 1) {
    if (ERR_GET_REASON(ERR_peek_error()) != X509_R_KEY_VALUES_MISMATCH) return Unusable("key", options.key);
    ERR_clear_error();
    return {GF_INVALID_ARGUMENT,
            "transport.thrift.key: " + options.key + " is not the key of the certificate in " + options.certificate};
  }
  if (!options.crl.empty()) {
    X509_STORE* store = SSL_CTX_get_cert_store(ctx);
    X509_LOOKUP* lookup = X509_STORE_add_lookup(store, X509_LOOKUP_file());
    if (lookup == nullptr || X509_load_crl_file(lookup, options.crl.c_str(), X509_FILETYPE_PEM) < 1) {
      return Unusable("crl", options.crl);
    }
    X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK);
  }
  return {};
}

std::vector<std::string> TlsContext::Names(X509* certificate, std::string* why) const {
  std::vector<std::string> named, names;
  auto* all = static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr));
  for (int i = 0; i < sk_GENERAL_NAME_num(all); ++i) {
    const GENERAL_NAME* one = sk_GENERAL_NAME_value(all, i);
    if (one->type != GEN_DNS) continue;
    const auto* text = reinterpret_cast<const char*>(ASN1_STRING_get0_data(one->d.dNSName));
    const std::string name(text, static_cast<size_t>(ASN1_STRING_length(one->d.dNSName)));
    // No worker's name has a NUL in it.
    if (name.find('\0') == std::string::npos) named.push_back(name);
  }
  GENERAL_NAMES_free(all);
  for (const std::string& name : named) {
    if (allow_.empty() || std::find(allow_.begin(), allow_.end(), name) != allow_.end()) names.push_back(name);
  }
  if (named.empty()) {
    *why = "its certificate names no worker: it has no DNS name as subject alternative name";
  } else if (names.empty()) {
    *why = "its certificate is for " + named.front() + ", which is not in transport.thrift.allow";
  }
  return names;
}

}  // namespace gradferry::thrift
