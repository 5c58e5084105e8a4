//! The CUDA half of libtorch, and what `tch` does not ask it.

use std::ffi::c_int;

use anyhow::Context;
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW, Symbol};

/// Opens libtorch's CUDA half. The linker leaves it out of the program, so that one program runs with and without.
pub(crate) fn open() -> anyhow::Result<()> {
    #[expect(unsafe_code, reason = "opening a library runs its initialisers; this one is libtorch's own")]
    let library = unsafe { Library::open(Some("libtorch_cuda.so"), RTLD_NOW | RTLD_GLOBAL) }
        .context("`libtorch_cuda.so` or a library it needs is not there; install the CUDA libraries of libtorch 2.11, or use `--device cpu`")?;
    // It stays open as long as the process lives.
    std::mem::forget(library);
    Ok(())
}

/// Free and total memory of GPU `n`, in bytes, by all processes; `None` where CUDA is not open or does not say.
pub(crate) fn memory(n: usize) -> Option<(u64, u64)> {
    let process = Library::this();
    let (mut free, mut total) = (0_usize, 0_usize);
    #[expect(unsafe_code, reason = "both functions are of CUDA's runtime, with the signatures of its documentation")]
    let codes = unsafe {
        // CUDA asks of the current device; this process has one only.
        let choose: Symbol<unsafe extern "C" fn(c_int) -> c_int> = process.get(b"cudaSetDevice\0").ok()?;
        let ask: Symbol<unsafe extern "C" fn(*mut usize, *mut usize) -> c_int> =
            process.get(b"cudaMemGetInfo\0").ok()?;
        [choose(n as c_int), ask(&raw mut free, &raw mut total)]
    };
    (codes == [0, 0]).then_some((free as u64, total as u64))
}
