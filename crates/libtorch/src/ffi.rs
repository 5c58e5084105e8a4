//! The functions of `shim.cpp`.

#![expect(unsafe_code, reason = "declarations of functions in C++")]

use std::ffi::c_char;

use torch_sys::C_tensor;

/// `c10::Event`.
#[repr(C)]
pub(crate) struct Event {
    _private: [u8; 0],
}

// SAFETY: the declarations are those of `shim.cpp`; `C_tensor` is `at::Tensor` for torch-sys, too.
unsafe extern "C" {
    pub(crate) fn shim_free(message: *mut c_char);
    pub(crate) safe fn shim_set_tf32(convolutions: bool, products: bool) -> *mut c_char;
    pub(crate) safe fn shim_tf32(convolutions: &mut bool, products: &mut bool) -> *mut c_char;
    pub(crate) safe fn shim_set_attention(flash: bool, efficient: bool, math: bool, cudnn: bool) -> *mut c_char;
    pub(crate) safe fn shim_attention(kernels: &mut [bool; 4]) -> *mut c_char;
    pub(crate) safe fn shim_set_cudnn_benchmark(on: bool, limit: i32) -> *mut c_char;
    pub(crate) safe fn shim_cudnn_benchmark(on: &mut bool, limit: &mut i32) -> *mut c_char;
    pub(crate) safe fn shim_statistics(device: i8, bytes: &mut [i64; 4]) -> *mut c_char;
    pub(crate) safe fn shim_reset_peaks(device: i8) -> *mut c_char;
    pub(crate) safe fn shim_release() -> *mut c_char;
    pub(crate) safe fn shim_event(device: i8, event: &mut *mut Event) -> *mut c_char;
    pub(crate) fn shim_event_wait(event: *const Event) -> *mut c_char;
    pub(crate) fn shim_event_elapsed(from: *const Event, to: *const Event, milliseconds: &mut f64) -> *mut c_char;
    pub(crate) fn shim_event_free(event: *mut Event);
    pub(crate) fn shim_randn(
        seed: u64,
        shape: *const i64,
        dimensions: usize,
        result: &mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) safe fn shim_profile_start() -> *mut c_char;
    pub(crate) safe fn shim_profile_stop(lines: &mut *mut c_char) -> *mut c_char;
    pub(crate) fn shim_backward(
        outputs: *const *const C_tensor,
        gradients: *const *const C_tensor,
        outputs_len: usize,
        inputs: *const *const C_tensor,
        inputs_len: usize,
        results: *mut *mut C_tensor,
    ) -> *mut c_char;
}
