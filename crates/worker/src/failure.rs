//! How libtorch fails: by panicking, with an exception of C++ as the message.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs something in which libtorch may fail. Its message becomes the error.
pub(crate) fn catch<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| message(panic.as_ref()))
}

/// The message of a panic. Those of `tch` are an exception of C++ in the debug format, its stack included.
pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    let text = match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(text), _) => text.as_str(),
        (None, Some(text)) => text,
        (None, None) => "the computation failed without a message",
    };
    let text = text.split_once("Torch(\"").map_or(text, |(_, exception)| exception);
    text.split("\\nException raised from").next().unwrap_or(text).trim_end_matches("\")").to_owned()
}

/// Whether libtorch failed because there was no memory, on a GPU or on a CPU.
pub(crate) fn is_out_of_memory(error: &str) -> bool {
    let error = error.to_ascii_lowercase();
    ["out of memory", "can't allocate memory", "not enough memory", "alloc_failed", NO_ENGINE]
        .iter()
        .any(|part| error.contains(part))
}

/// What cuDNN says where its workspace does not fit, and where it cannot compute something at all.
const NO_ENGINE: &str = "unable to find an engine";

/// Whether an error that [`is_out_of_memory`] may be of another kind, so that a smaller batch would fail, too.
pub(crate) fn is_ambiguous(error: &str) -> bool {
    error.to_ascii_lowercase().contains(NO_ENGINE)
}

/// Whether a CUDA error makes every later call fail, too. Running out of memory does not.
pub(crate) fn is_sticky(error: &str) -> bool {
    let lower = error.to_ascii_lowercase();
    let of_device = ["cuda error", "cublas_status", "device-side assert"].iter().any(|part| lower.contains(part));
    of_device && !is_out_of_memory(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_of_libtorch_is_an_error_with_its_message() {
        let error = catch(|| tch::Tensor::zeros([2], (tch::Kind::Float, tch::Device::Cpu)).view([3])).unwrap_err();
        assert!(error.contains("shape '[3]' is invalid for input of size 2"), "{error}");
        assert!(!error.contains("frame #"), "{error}");
    }

    #[test]
    fn other_panics_keep_their_message() {
        assert_eq!(catch(|| panic!("a constant")).unwrap_err(), "a constant");
        assert_eq!(catch(|| panic!("number {}", 1)).unwrap_err(), "number 1");
        let error = catch(|| std::panic::panic_any(1)).unwrap_err();
        assert_eq!(error, "the computation failed without a message");
        assert_eq!(catch(|| 1), Ok(1));
    }

    #[test]
    fn running_out_of_memory_is_recognised() {
        for message in [
            "CUDA out of memory. Tried to allocate 2.00 GiB",
            "[enforce fail at alloc_cpu.cpp:125] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to \
             allocate 8 bytes",
            "CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
            "FIND was unable to find an engine to execute this computation",
        ] {
            assert!(is_out_of_memory(message), "{message}");
        }
        assert!(!is_out_of_memory("CUDA error: an illegal memory access was encountered"));
        assert!(is_ambiguous("GET was unable to find an engine to execute this computation"));
        assert!(!is_ambiguous("CUDA out of memory. Tried to allocate 2.00 GiB"));
    }

    #[test]
    fn only_what_spoils_the_device_is_sticky() {
        assert!(is_sticky("CUDA error: an illegal memory access was encountered"));
        assert!(is_sticky("CUDA error: device-side assert triggered"));
        assert!(!is_sticky("CUDA out of memory. Tried to allocate 2.00 GiB"));
        assert!(!is_sticky("CUDA error: out of memory"));
        assert!(!is_sticky("cuDNN error: unable to find an engine to execute this computation"));
        assert!(!is_sticky("shape '[3]' is invalid for input of size 2"));
    }
}
