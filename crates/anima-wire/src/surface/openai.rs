//! stub
use anima_core::failure::Failure;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::Model;

pub fn error_body(
    _failure: Failure,
    _message: &str,
    _param: Option<&str>,
    _extra: Option<&serde_json::Value>,
) -> Bytes {
    todo!()
}
pub fn error_head(_failure: Failure, _retry_after_ms: Option<u64>) -> (StatusCode, HeaderMap) {
    todo!()
}
pub fn model_list(_models: &[Model<'_>]) -> Bytes {
    todo!()
}
pub fn model_object(_model: &Model<'_>) -> Bytes {
    todo!()
}
