// The dtypes that Gradferry carries, in one table: libtorch's enum, the name for people, the number on the wire, and
// DLPack's code and bits. A dtype that is not here is refused wherever a tensor enters. Internal to impl/tensor.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>

namespace gradferry {

struct DtypeInfo {
  c10::ScalarType type;
  const char* name;
  uint8_t wire;
  uint8_t code;  // GF_DTYPE_*
  uint8_t bits;
};

inline constexpr DtypeInfo kDtypes[] = {
    {c10::ScalarType::Byte, "uint8", 0, 1, 8},
    {c10::ScalarType::Char, "int8", 1, 0, 8},
    {c10::ScalarType::Short, "int16", 2, 0, 16},
    {c10::ScalarType::Int, "int32", 3, 0, 32},
    {c10::ScalarType::Long, "int64", 4, 0, 64},
    {c10::ScalarType::Half, "float16", 5, 2, 16},
    {c10::ScalarType::Float, "float32", 6, 2, 32},
    {c10::ScalarType::Double, "float64", 7, 2, 64},
    {c10::ScalarType::ComplexFloat, "complex64", 9, 5, 64},
    {c10::ScalarType::ComplexDouble, "complex128", 10, 5, 128},
    {c10::ScalarType::Bool, "bool", 11, 6, 8},
    {c10::ScalarType::BFloat16, "bfloat16", 15, 4, 16},
};

// nullptr when the table has no such dtype.
inline const DtypeInfo* FindDtype(c10::ScalarType type) {
  for (const DtypeInfo& info : kDtypes) {
    if (info.type == type) return &info;
  }
  return nullptr;
}

}  // namespace gradferry
