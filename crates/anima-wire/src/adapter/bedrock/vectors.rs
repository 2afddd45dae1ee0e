//! Models at Bedrock that make vectors: Amazon's Titan and Cohere's, by `InvokeModel`.
//!
//! Their bodies are `embedding`'s matter. Cohere's tell no tokens in the body, so that these are
//! counted here. Invariant: an adapter per form, known by the model's name. Source: AWS's
//! reference of Titan's and Cohere's parameters (November 2026).

use anima_core::failure::Failure;
use bytes::Bytes;
use http::header::HeaderMap;

use super::{NAME, authorize, classify, region};
use crate::adapter::embedding::{self, Form};
use crate::adapter::{
    Adapter, Answer, Classified, Destination, Encoded, SecretUnusable, Sent, StreamDecoder, in_path,
};
use crate::canonical::Refusal;
use crate::dialect::Dialect;
use crate::request::{CallRequest, Endpoint};

/// Makes vectors.
#[derive(Debug)]
pub(in crate::adapter) struct Vectors(Form);

/// How the names of models go on, and whose form they have.
static MODELS: [(&str, Vectors); 2] =
    [("titan-embed", Vectors(Form::Titan)), ("cohere.embed", Vectors(Form::CohereInvoke))];

/// The adapter for a model that makes vectors.
pub(in crate::adapter) fn of_model(model: &str) -> Option<&'static dyn Adapter> {
    let (_, vectors) = MODELS.iter().find(|(name, _)| model.contains(name))?;
    Some(vectors)
}

impl Adapter for Vectors {
    fn name(&self) -> &'static str {
        NAME
    }

    fn serves(&self, endpoint: Endpoint) -> bool {
        endpoint == Endpoint::Embeddings
    }

    fn encode(&self, request: &CallRequest, to: Destination<'_>) -> Result<Encoded, Refusal> {
        let carried = embedding::to_form(self.0, request, to.model)?;
        let path = format!("/model/{}/invoke", in_path(to.model));
        Ok(Encoded { region: region(to), ..Encoded::carried(path, carried) })
    }

    fn authorize(
        &self,
        headers: &mut HeaderMap,
        secret: &str,
        sent: &Sent<'_>,
    ) -> Result<(), SecretUnusable> {
        authorize(headers, secret, sent)
    }

    fn classify(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Classified {
        classify(status, headers, body)
    }

    fn answer(&self, request: &CallRequest, body: &Bytes) -> Result<Answer, Failure> {
        embedding::from_form(request, body)
    }

    fn stream(&self, request: &CallRequest) -> StreamDecoder {
        StreamDecoder::of(Dialect::Anthropic, request)
    }
}
