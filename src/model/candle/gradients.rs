//! Gradients of trained tensors, with the check that candle leaves to its caller.

use super::{ModelError, failed};
use candle_core::{Tensor, Var};

/// Gradients of `loss` (a scalar) for each named variable, in their order. A variable that no gradient reaches is an
/// error: some of candle's operations have no backward pass and let training go on without it.
pub fn gradients(loss: &Tensor, vars: &[(String, Var)]) -> Result<Vec<Tensor>, ModelError> {
    let store = loss.backward().map_err(failed("backward pass"))?;
    vars.iter()
        .map(|(name, var)| {
            store.get(var).cloned().ok_or_else(|| ModelError::NoGradient { tensor: name.clone() })
        })
        .collect()
}
