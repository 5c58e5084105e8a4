//! The pictures of predictions, and small copies of them.
//!
//! A copy is made when it is first asked for, and is then stored beside the picture. What always holds: of each one is
//! made at a time, and few in all, so that neither memory nor processors are theirs alone.

use std::sync::Arc;

use super::shared::Shared;
use crate::output;
use crate::store::{Kind, Picture, StoreError, Which};

impl Shared {
    /// An output of a prediction, in small if a width is given, which is one of [`output::thumbnail_width`].
    pub(super) async fn picture(&self, id: &str, n: u32, width: Option<u32>) -> Result<Option<Picture>, StoreError> {
        let whole = Which { kind: Kind::Output, n };
        let Some(width) = width else { return self.store.picture(id, whole).await };
        let small = Which { kind: Kind::Thumbnail(width), n };
        if let Some(known) = self.store.picture(id, small.clone()).await? {
            return Ok(Some(known));
        }
        let _one = self.copies.of(id, &small).lock().await;
        if let Some(known) = self.store.picture(id, small.clone()).await? {
            return Ok(Some(known));
        }
        // Its number first: should the id be used again in between, the copy is not kept.
        let Some(record) = self.store.record(id).await? else { return Ok(None) };
        let Some(whole) = self.store.picture(id, whole).await? else { return Ok(None) };
        let made = tokio::task::spawn_blocking(move || output::thumbnail(&whole.bytes, width)).await;
        let bytes: Arc<[u8]> = match made {
            Ok(Ok(jpeg)) => jpeg.into(),
            Ok(Err(why)) => return Err(StoreError::Corrupt(format!("the picture of `{id}` {why}"))),
            Err(error) => return Err(StoreError::Engine(error.to_string())),
        };
        let copy = Picture { which: small, media: "image/jpeg".to_owned(), file: None, bytes };
        // What is nearly full is for those that are drawn.
        if self.store.trouble().is_none()
            && let Err(error) = self.store.add_picture(id, record.seq, copy.clone()).await
        {
            tracing::warn!(%error, "a small copy of a picture could not be stored");
        }
        Ok(Some(copy))
    }
}
