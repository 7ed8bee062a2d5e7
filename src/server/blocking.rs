//! Work that would hold up other requests - tokenising, disks, the encoder - on a thread of its own.

use super::error::ApiError;

pub async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, ApiError>
where
    T: Send + 'static,
    E: Send + 'static,
    ApiError: From<E>,
{
    Ok(tokio::task::spawn_blocking(work).await.map_err(ApiError::internal)??)
}
