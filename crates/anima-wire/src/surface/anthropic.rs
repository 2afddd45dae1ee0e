//! stub
use bytes::Bytes;

use super::Model;

pub fn model_list(_models: &[Model<'_>]) -> Bytes {
    todo!()
}
pub fn model_object(_model: &Model<'_>) -> Bytes {
    todo!()
}
