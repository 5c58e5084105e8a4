//! The CUDA half of libtorch, and questions to CUDA that `tch` does not pass on.

use std::ffi::c_int;

use anyhow::Context;
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW, Symbol};

/// Opens libtorch's CUDA half. The linker leaves it out of the program, so that one program runs with and without.
pub(crate) fn open() -> anyhow::Result<()> {
    #[expect(unsafe_code, reason = "libtorch's own initialisers")]
    // SAFETY: opening a library runs its initialisers. This one is the other half of the libtorch that the program is
    // linked with, made to be loaded after it; it is opened once, before libtorch is used on other threads.
    let library = unsafe { Library::open(Some("libtorch_cuda.so"), RTLD_NOW | RTLD_GLOBAL) }.context(
        "`libtorch_cuda.so` or a library it needs is missing; install the CUDA libraries of libtorch 2.11, or use \
         `--device cpu`",
    )?;
    // It stays open as long as the process lives.
    std::mem::forget(library);
    Ok(())
}

/// Free and total memory of GPU `n`, in bytes, by all processes; `None` where CUDA is not open or does not answer.
pub(crate) fn memory(n: usize) -> Option<(u64, u64)> {
    let process = Library::this();
    let (mut free, mut total) = (0_usize, 0_usize);
    #[expect(unsafe_code, reason = "two functions of CUDA's runtime API")]
    // SAFETY: if the process has these two symbols, they come from libcudart, as the CUDA half of libtorch 2.11 links
    // it. Their ABI is that of CUDA's runtime API: `cudaError_t cudaSetDevice(int)` and
    // `cudaError_t cudaMemGetInfo(size_t *free, size_t *total)`, with an enum of the size of `int`. Both pointers are
    // valid for the call, and the library is never closed.
    let codes = unsafe {
        // CUDA answers for the current device; this process has one only.
        let set_device: Symbol<unsafe extern "C" fn(c_int) -> c_int> = process.get(b"cudaSetDevice\0").ok()?;
        let mem_get_info: Symbol<unsafe extern "C" fn(*mut usize, *mut usize) -> c_int> =
            process.get(b"cudaMemGetInfo\0").ok()?;
        [set_device(n as c_int), mem_get_info(&raw mut free, &raw mut total)]
    };
    (codes == [0, 0]).then_some((free as u64, total as u64))
}
