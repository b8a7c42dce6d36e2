/* Version of the library, and what libedgellm.so shows: everything between EL_API_BEGIN and EL_API_END. */
#ifndef EDGELLM_API_H
#define EDGELLM_API_H

#define EL_VERSION "0.1.0"

#ifdef __cplusplus
#define EL_EXTERN_C_BEGIN extern "C" {
#define EL_EXTERN_C_END }
#else
#define EL_EXTERN_C_BEGIN
#define EL_EXTERN_C_END
#endif

#if defined(EL_SHARED)  // set by csrc/Makefile; the Python extension shows nothing of the engine
#define EL_API_BEGIN _Pragma("GCC visibility push(default)") EL_EXTERN_C_BEGIN
#define EL_API_END EL_EXTERN_C_END _Pragma("GCC visibility pop")
#else
#define EL_API_BEGIN EL_EXTERN_C_BEGIN
#define EL_API_END EL_EXTERN_C_END
#endif

#endif
