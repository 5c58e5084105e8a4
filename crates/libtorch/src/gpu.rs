//! What libtorch knows of a GPU: the memory that this process has of it, and when it has done what.

use std::ptr::{self, NonNull};
use std::time::Instant;

use tch::Device;

use crate::{Error, check, ffi};

/// What this process has of the memory of a GPU, in bytes. The CUDA context itself is not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// In tensors.
    pub allocated: u64,
    /// The maximum of it, since [`reset_peaks`].
    pub max_allocated: u64,
    /// Taken from the GPU: in tensors, or kept for the next ones.
    pub reserved: u64,
    /// The maximum of it, since [`reset_peaks`].
    pub max_reserved: u64,
}

/// What this process has of the memory of GPU `n`.
///
/// # Errors
/// If CUDA is not open, or does not answer.
pub fn memory(n: usize) -> Result<Memory, Error> {
    let mut bytes = [0; 4];
    check(ffi::shim_statistics(n as i8, &mut bytes))?;
    let [allocated, max_allocated, reserved, max_reserved] = bytes.map(|bytes| bytes.max(0) as u64);
    Ok(Memory { allocated, max_allocated, reserved, max_reserved })
}

/// Lets the maxima of [`memory`] begin with what is in use now.
///
/// # Errors
/// If CUDA is not open, or does not answer.
pub fn reset_peaks(n: usize) -> Result<(), Error> {
    check(ffi::shim_reset_peaks(n as i8))
}

/// Gives memory without tensors back to the GPUs.
///
/// # Errors
/// If CUDA is not open, or does not answer.
pub fn release() -> Result<(), Error> {
    check(ffi::shim_release())
}

/// A point in what a device computes: the end of all that it was given until then.
#[derive(Debug)]
pub struct Mark {
    /// When it was made; for a CPU, which computes what it is given at once, that is the point itself.
    made: Instant,
    event: Option<Event>,
}

impl Mark {
    /// The end of all that the device was given until now.
    ///
    /// # Errors
    /// If the device fails, or has failed before.
    pub fn new(device: Device) -> Result<Self, Error> {
        let event = match device {
            Device::Cuda(n) => Some(Event::new(n)?),
            _ => None,
        };
        Ok(Self { made: Instant::now(), event })
    }

    /// Waits until the device is there.
    ///
    /// # Errors
    /// If the device fails, or has failed before.
    pub fn wait(&self) -> Result<(), Error> {
        self.event.as_ref().map_or(Ok(()), Event::wait)
    }

    /// Seconds of the device from an earlier mark to this one, both of which are waited for.
    ///
    /// # Errors
    /// If the device fails, or has failed before.
    pub fn seconds_since(&self, earlier: &Self) -> Result<f64, Error> {
        match (&earlier.event, &self.event) {
            (Some(from), Some(to)) => {
                from.wait()?;
                to.wait()?;
                from.seconds_to(to)
            }
            _ => Ok(self.made.saturating_duration_since(earlier.made).as_secs_f64()),
        }
    }
}

/// An event of a GPU.
#[derive(Debug)]
struct Event(NonNull<ffi::Event>);

impl Event {
    fn new(n: usize) -> Result<Self, Error> {
        let mut event = ptr::null_mut();
        check(ffi::shim_event(n as i8, &mut event))?;
        Ok(Self(NonNull::new(event).expect("the shim makes an event where it does not fail")))
    }

    fn wait(&self) -> Result<(), Error> {
        #[expect(unsafe_code, reason = "an event of C++")]
        // SAFETY: the event is valid until it is dropped.
        check(unsafe { ffi::shim_event_wait(self.0.as_ptr()) })
    }

    fn seconds_to(&self, to: &Self) -> Result<f64, Error> {
        let mut milliseconds = 0.0;
        #[expect(unsafe_code, reason = "two events of C++")]
        // SAFETY: both events are valid until they are dropped.
        check(unsafe { ffi::shim_event_elapsed(self.0.as_ptr(), to.0.as_ptr(), &mut milliseconds) })?;
        Ok(milliseconds / 1e3)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "an event of C++")]
        // SAFETY: the shim made it, and nothing has freed it before.
        unsafe {
            ffi::shim_event_free(self.0.as_ptr());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_cuda_there_is_no_gpu_to_ask() {
        assert!(memory(0).is_err() && reset_peaks(0).is_err() && release().is_err());
        let error = Mark::new(Device::Cuda(0)).unwrap_err().to_string();
        assert!(error.to_lowercase().contains("accelerator") && !error.contains("frame #"), "{error}");
    }

    #[test]
    fn a_cpu_is_done_when_it_returns() {
        let [from, to] = [(); 2].map(|()| Mark::new(Device::Cpu).unwrap());
        to.wait().unwrap();
        assert!(to.seconds_since(&from).unwrap() >= 0.0);
        assert_eq!(from.seconds_since(&to), Ok(0.0));
    }
}
