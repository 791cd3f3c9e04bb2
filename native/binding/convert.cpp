#include "binding/convert.h"

#include <cmath>
#include <cstring>

#include "binding/addon.h"
#include "binding/errors.h"
#include "binding/tensor_wrap.h"

namespace mixpl::binding {
namespace {

std::string describe(const Napi::Value& value) {
  if (value.IsUndefined()) return "undefined";
  if (value.IsNull()) return "null";
  if (value.IsTypedArray())
    return str("a typed array of ", value.As<Napi::TypedArray>().ElementLength());
  if (value.IsArray()) return str("an array of ", value.As<Napi::Array>().Length());
  if (value.IsFunction()) return "a function";
  if (value.IsObject()) return "an object";
  if (value.IsString()) return str("'", value.As<Napi::String>().Utf8Value(), "'");
  return value.ToString().Utf8Value();
}

template <typename T>
constexpr napi_typedarray_type typed_array_of();
template <>
constexpr napi_typedarray_type typed_array_of<float>() {
  return napi_float32_array;
}
template <>
constexpr napi_typedarray_type typed_array_of<double>() {
  return napi_float64_array;
}
template <>
constexpr napi_typedarray_type typed_array_of<int32_t>() {
  return napi_int32_array;
}
template <>
constexpr napi_typedarray_type typed_array_of<uint8_t>() {
  return napi_uint8_array;
}
template <>
constexpr napi_typedarray_type typed_array_of<uint16_t>() {
  return napi_uint16_array;
}

template <typename T>
const char* typed_array_name() {
  switch (typed_array_of<T>()) {
    case napi_float32_array:
      return "a Float32Array";
    case napi_float64_array:
      return "a Float64Array";
    case napi_int32_array:
      return "an Int32Array";
    case napi_uint16_array:
      return "a Uint16Array";
    default:
      return "a Uint8Array";
  }
}

template <typename Array, typename T>
Array copy_out(Napi::Env env, const std::vector<T>& values) {
  Array out = Array::New(env, values.size());
  if (!values.empty()) std::memcpy(out.Data(), values.data(), values.size() * sizeof(T));
  return out;
}

}  // namespace

void Args::fail(const char* name, const std::string& expected, const Napi::Value& got) const {
  throw make_error(
      env(), {"ERR_DTYPE", str(call_, ": ", name, " must be ", expected, ", got ", describe(got))});
}

double Args::number(size_t i, const char* name) const {
  if (!value(i).IsNumber()) fail(name, "a number", value(i));
  return value(i).As<Napi::Number>().DoubleValue();
}
int64_t Args::integer(size_t i, const char* name) const {
  const double v = number(i, name);
  if (v != std::floor(v) || std::fabs(v) > 9007199254740991.0) fail(name, "an integer", value(i));
  return static_cast<int64_t>(v);
}
bool Args::boolean(size_t i, const char* name) const {
  if (!value(i).IsBoolean()) fail(name, "true or false", value(i));
  return value(i).As<Napi::Boolean>().Value();
}
std::string Args::text(size_t i, const char* name) const {
  if (!value(i).IsString()) fail(name, "a string", value(i));
  return value(i).As<Napi::String>().Utf8Value();
}
Device Args::device(size_t i, const char* name) const {
  return present(i) ? Device::parse(text(i, name)) : Device::cpu();
}
Napi::Object Args::object(size_t i, const char* name) const {
  if (!value(i).IsObject()) fail(name, "an object", value(i));
  return value(i).As<Napi::Object>();
}
Tensor Args::tensor(size_t i, const char* name) const {
  return unwrap_tensor(value(i), call_, name);
}

std::vector<Tensor> Args::tensors(size_t i, const char* name) const {
  if (!value(i).IsArray()) fail(name, "an array of tensors", value(i));
  const auto array = value(i).As<Napi::Array>();
  std::vector<Tensor> out;
  for (uint32_t k = 0; k < array.Length(); ++k)
    out.push_back(unwrap_tensor(array.Get(k), call_, name));
  return out;
}

template <typename T>
std::vector<T> Args::values_of(const Napi::Value& value, const char* name) const {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != typed_array_of<T>())
    fail(name, typed_array_name<T>(), value);
  const auto array = value.As<Napi::TypedArrayOf<T>>();
  return std::vector<T>(array.Data(), array.Data() + array.ElementLength());
}
template std::vector<float> Args::values_of<float>(const Napi::Value&, const char*) const;
template std::vector<double> Args::values_of<double>(const Napi::Value&, const char*) const;
template std::vector<int32_t> Args::values_of<int32_t>(const Napi::Value&, const char*) const;
template std::vector<uint8_t> Args::values_of<uint8_t>(const Napi::Value&, const char*) const;
template std::vector<uint16_t> Args::values_of<uint16_t>(const Napi::Value&, const char*) const;

std::span<float> Args::floats(size_t i, const char* name) const {
  const Napi::Value value = this->value(i);
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_float32_array)
    fail(name, "a Float32Array", value);
  auto array = value.As<Napi::Float32Array>();
  return {array.Data(), array.ElementLength()};
}

std::pair<const uint8_t*, size_t> Args::bytes(const Napi::Value& value, const char* name) const {
  if (!value.IsTypedArray()) fail(name, "a typed array", value);
  // Not by way of its ArrayBuffer, which Node-API knows no data of where it is shared.
  void* data = nullptr;
  if (napi_get_typedarray_info(env(), value, nullptr, nullptr, &data, nullptr, nullptr) != napi_ok)
    fail(name, "a typed array", value);
  return {static_cast<const uint8_t*>(data), value.As<Napi::TypedArray>().ByteLength()};
}

Napi::Float32Array to_js(Napi::Env env, const std::vector<float>& values) {
  return copy_out<Napi::Float32Array>(env, values);
}
Napi::Float64Array to_js(Napi::Env env, const std::vector<double>& values) {
  return copy_out<Napi::Float64Array>(env, values);
}
Napi::Int32Array to_js(Napi::Env env, const std::vector<int32_t>& values) {
  return copy_out<Napi::Int32Array>(env, values);
}
Napi::Uint8Array to_js(Napi::Env env, const std::vector<uint8_t>& values) {
  return copy_out<Napi::Uint8Array>(env, values);
}
Napi::Value to_js(Napi::Env env, const Tensor& tensor) { return wrap_tensor(env, tensor); }
Napi::Array to_js(Napi::Env env, const std::vector<Tensor>& tensors) {
  Napi::Array out = Napi::Array::New(env, tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i)
    out.Set(i, tensors[i].defined() ? to_js(env, tensors[i]) : env.Null());
  return out;
}
Napi::Array to_js(Napi::Env env, const Shape& shape) {
  Napi::Array out = Napi::Array::New(env, shape.rank());
  for (int i = 0; i < shape.rank(); ++i) out.Set(i, Napi::Number::New(env, shape[i]));
  return out;
}

}  // namespace mixpl::binding
