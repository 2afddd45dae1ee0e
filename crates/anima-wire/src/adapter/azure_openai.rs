//! OpenAI's models at Azure.
//!
//! Speaks what `openai_compatible` does, at other paths and with another header, as
//! `learn.microsoft.com/azure/ai-foundry/openai/reference` documents it (`b-outbound-chat` B.1 and
//! B.5, read November 2026). The route's model is the deployment's name. With `api_version` among
//! the channel's settings the dated paths are used, else those of v1. The base URL is the bare
//! resource. Invariant: a secret leaves only in its header, marked as sensitive.

use anima_core::failure::Failure;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName};

use super::openai_compatible::OPENAI;
use super::{
    Adapter, Answer, Classified, Destination, Encoded, SecretUnusable, Sent, StreamDecoder,
    in_path, secure,
};
use crate::canonical::Refusal;
use crate::request::{CallRequest, Endpoint};

/// How tokens of Entra begin; keys never do.
const TOKEN: &str = "eyJ";

/// The adapter.
#[derive(Debug)]
pub(super) struct AzureOpenAi;

impl Adapter for AzureOpenAi {
    fn name(&self) -> &'static str {
        "azure_openai"
    }

    fn serves(&self, endpoint: Endpoint) -> bool {
        OPENAI.serves(endpoint)
    }

    fn encode(&self, request: &CallRequest, to: Destination<'_>) -> Result<Encoded, Refusal> {
        let mut encoded = OPENAI.encode(request, to)?;
        let path = request.endpoint.path();
        encoded.path = match to.setting("api_version") {
            Some(version) => {
                let deployment = in_path(to.model);
                let version = in_path(version);
                format!("/openai/deployments/{deployment}{path}?api-version={version}").into()
            }
            None => format!("/openai/v1{path}").into(),
        };
        Ok(encoded)
    }

    fn authorize(
        &self,
        headers: &mut HeaderMap,
        secret: &str,
        _sent: &Sent<'_>,
    ) -> Result<(), SecretUnusable> {
        if secret.starts_with(TOKEN) {
            return secure(headers, AUTHORIZATION, &format!("Bearer {secret}"));
        }
        secure(headers, HeaderName::from_static("api-key"), secret)
    }

    fn classify(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Classified {
        OPENAI.classify(status, headers, body)
    }

    fn answer(&self, request: &CallRequest, body: &Bytes) -> Result<Answer, Failure> {
        OPENAI.answer(request, body)
    }

    fn stream(&self, request: &CallRequest) -> StreamDecoder {
        OPENAI.stream(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_and_a_token_have_headers_of_their_own() {
        let mut headers = HeaderMap::new();
        AzureOpenAi.authorize(&mut headers, "0123abc", &Sent::nothing()).unwrap();
        assert!(headers["api-key"].is_sensitive() && !headers.contains_key(AUTHORIZATION));
        let mut headers = HeaderMap::new();
        AzureOpenAi.authorize(&mut headers, "eyJ0.a.b", &Sent::nothing()).unwrap();
        assert!(headers[AUTHORIZATION].is_sensitive() && !headers.contains_key("api-key"));
    }
}
