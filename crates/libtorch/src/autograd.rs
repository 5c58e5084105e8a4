//! Backward passes from given gradients. Those of `tch` begin with ones.

use std::iter;
use std::ptr;

use tch::Tensor;
use torch_sys::C_tensor;

use crate::{Error, check, ffi};

/// The gradients of `inputs`, from those of `outputs`, which autograd has the graph of. The graph is freed.
///
/// Each gradient has the shape, the dtype and, where speed matters, the memory order of its output.
///
/// # Errors
/// If an output does not depend on every input, or libtorch fails.
pub fn backward(outputs: &[(&Tensor, &Tensor)], inputs: &[&Tensor]) -> Result<Vec<Tensor>, Error> {
    let of_tensors =
        |tensors: &mut dyn Iterator<Item = &Tensor>| -> Vec<*const C_tensor> { tensors.map(Tensor::as_ptr).collect() };
    let (roots, gradients) = (
        of_tensors(&mut outputs.iter().map(|(output, _)| *output)),
        of_tensors(&mut outputs.iter().map(|(_, gradient)| *gradient)),
    );
    let leaves = of_tensors(&mut inputs.iter().copied());
    let mut results: Vec<*mut C_tensor> = iter::repeat_n(ptr::null_mut(), inputs.len()).collect();
    #[expect(unsafe_code, reason = "pointers to tensors")]
    // SAFETY: all pointers come from tensors that are borrowed for longer than the call, and the lists have the lengths
    // that are given.
    check(unsafe {
        ffi::shim_backward(
            roots.as_ptr(),
            gradients.as_ptr(),
            roots.len(),
            leaves.as_ptr(),
            leaves.len(),
            results.as_mut_ptr(),
        )
    })?;
    #[expect(unsafe_code, reason = "tensors of C++")]
    // SAFETY: where it does not fail the shim fills the list with tensors that nobody else owns.
    let tensors = results.into_iter().map(|result| unsafe { Tensor::from_ptr(result) }).collect();
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    /// y = x², z = 3x: the gradient of x is 2x times that of y, and 3 times that of z.
    #[test]
    fn gradients_begin_with_those_that_are_given() {
        let x = Tensor::from_slice(&[1.0_f32, 2.0, 3.0]).set_requires_grad(true);
        let (y, z) = tch::with_grad(|| (x.square(), &x * 3.0));
        let [of_y, of_z] = [[1.0_f32, 10.0, 100.0], [1.0, 1.0, 2.0]].map(|numbers| Tensor::from_slice(&numbers));
        let found = backward(&[(&y, &of_y), (&z, &of_z)], &[&x]).unwrap();
        assert_eq!(Vec::<f32>::try_from(&found[0]).unwrap(), [5.0, 43.0, 606.0]);
    }

    #[test]
    fn each_input_has_a_gradient() {
        let [a, b] = [2.0_f32, 5.0].map(|number| Tensor::from_slice(&[number]).set_requires_grad(true));
        let product = tch::with_grad(|| &a * &b);
        let found = backward(&[(&product, &Tensor::ones([1], (Kind::Float, Device::Cpu)))], &[&a, &b]).unwrap();
        assert_eq!(found.iter().map(|gradient| gradient.double_value(&[0])).collect::<Vec<_>>(), [5.0, 2.0]);
    }

    #[test]
    fn failures_are_errors() {
        let x = Tensor::ones([2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let other = Tensor::ones([2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let y = tch::with_grad(|| &x * 2.0);
        let error = backward(&[(&y, &Tensor::ones([3], (Kind::Float, Device::Cpu)))], &[&x]).unwrap_err();
        assert!(error.to_string().contains("shape"), "{error}");
        assert!(backward(&[(&y, &y.detach())], &[&other]).is_err(), "nothing depends on it");
    }
}
