//! stub
use anima_core::failure::Failure;
use anima_core::usage::Usage;
use bytes::Bytes;

#[derive(Debug)]
pub struct StreamDecoder {}
impl StreamDecoder {
    pub fn push(&mut self, _chunk: Bytes, _out: &mut Vec<Bytes>) -> Result<(), Failure> {
        todo!()
    }
    pub fn end(&mut self, _out: &mut Vec<Bytes>) -> Result<(), Failure> {
        todo!()
    }
    pub fn has_content(&self) -> bool {
        todo!()
    }
    pub fn is_done(&self) -> bool {
        todo!()
    }
    pub fn terminator(&self) -> Bytes {
        todo!()
    }
    pub fn usage(&self) -> Option<Usage> {
        todo!()
    }
    pub fn usage_suspect(&self) -> bool {
        todo!()
    }
    pub fn service_tier(&self) -> Option<&str> {
        todo!()
    }
    pub fn upstream_ref(&self) -> Option<&str> {
        todo!()
    }
    pub fn count_output_tokens(&mut self) -> u64 {
        todo!()
    }
    pub fn error_event(_failure: Failure, _message: &str, _request_id: &str) -> Bytes {
        todo!()
    }
}
