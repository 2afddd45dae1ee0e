//! A call as it is stored until a worker makes it.
//!
//! A line of JSON with what its path and its headers said, then the body as it came. Invariant: who
//! opens it makes the call that was asked for; the API key is not in it.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use anima_wire::dialect::Dialect;
use anima_wire::request::{Endpoint, Ranking};

use super::super::serve::Wanted;
use super::pin::Pin;
use crate::relay::call::endpoint_name;

/// What can be stored. An endpoint that is not here is not served to keys in queue mode ASYNC.
const STORABLE: &[(Endpoint, Dialect)] = &[
    (Endpoint::ChatCompletions, Dialect::OpenAiChat),
    (Endpoint::ChatCompletions, Dialect::Responses),
    (Endpoint::ChatCompletions, Dialect::Anthropic),
    (Endpoint::ChatCompletions, Dialect::Gemini),
    (Endpoint::Completions, Dialect::OpenAiChat),
    (Endpoint::Embeddings, Dialect::OpenAiChat),
    (Endpoint::Embeddings, Dialect::Gemini),
    (Endpoint::Moderations, Dialect::OpenAiChat),
    (Endpoint::Images, Dialect::OpenAiChat),
    (Endpoint::Rerank, Dialect::OpenAiChat),
];

/// Our own headers say how a call is to be made; others do not matter to it.
const OURS: &str = "x-anima-";

/// A call. See the module.
#[derive(Debug, Clone)]
pub(in crate::api) struct Parcel {
    pub(super) wanted: Wanted,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// What it is sold at, whenever it is made. `None` in what older programs stored.
    pub(super) pin: Option<Pin>,
}

/// The line before the body.
#[derive(Serialize, Deserialize)]
struct Head {
    endpoint: String,
    named: Option<(String, bool)>,
    as_array: bool,
    /// Of a rerank.
    #[serde(default)]
    is_cohere: bool,
    headers: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pin: Option<Pin>,
}

impl Parcel {
    /// A call as it came in. `None` for an endpoint whose calls cannot be stored.
    pub(in crate::api) fn of(wanted: &Wanted, headers: &HeaderMap, body: Bytes) -> Option<Self> {
        let name = endpoint_name(wanted.endpoint, wanted.dialect);
        endpoint_of(name).filter(|found| *found == (wanted.endpoint, wanted.dialect))?;
        let ours = headers.iter().filter(|(name, _)| name.as_str().starts_with(OURS));
        let headers = ours.map(|(name, value)| (name.clone(), value.clone())).collect();
        Some(Self { wanted: wanted.clone(), headers, body, pin: None })
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let text = |(name, value): (&HeaderName, &HeaderValue)| {
            Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
        };
        let head = Head {
            endpoint: endpoint_name(self.wanted.endpoint, self.wanted.dialect).to_owned(),
            named: self.wanted.named.clone(),
            as_array: self.wanted.as_array,
            is_cohere: self.wanted.ranking == Ranking::Cohere,
            headers: self.headers.iter().filter_map(text).collect(),
            pin: self.pin.clone(),
        };
        // Strings, a number and a flag always serialise.
        let mut bytes = serde_json::to_vec(&head).unwrap_or_default();
        bytes.reserve(self.body.len() + 1);
        bytes.push(b'\n');
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// What was stored. `None` when these are other bytes.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let end = bytes.iter().position(|b| *b == b'\n')?;
        let (head, body) = bytes.split_at_checked(end)?;
        let head: Head = serde_json::from_slice(head).ok()?;
        let (endpoint, dialect) = endpoint_of(&head.endpoint)?;
        let (named, as_array) = (head.named, head.as_array);
        let ranking = if head.is_cohere { Ranking::Cohere } else { Ranking::Jina };
        let wanted = Wanted { endpoint, dialect, named, as_array, ranking };
        let header = |(name, value): (String, String)| {
            Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?))
        };
        let headers = head.headers.into_iter().filter_map(header).collect();
        let (body, pin) = (Bytes::copy_from_slice(body.get(1..)?), head.pin);
        Some(Self { wanted, headers, body, pin })
    }
}

fn endpoint_of(name: &str) -> Option<(Endpoint, Dialect)> {
    STORABLE.iter().copied().find(|(endpoint, dialect)| endpoint_name(*endpoint, *dialect) == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_comes_out_as_it_went_in_without_its_key() {
        let mut headers = HeaderMap::new();
        headers.insert("x-anima-deadline-ms", HeaderValue::from_static("5000"));
        headers.insert("authorization", HeaderValue::from_static("Bearer sk-a-b"));
        let wanted = Wanted {
            named: Some(("gemini-x".to_owned(), true)),
            as_array: true,
            ..Wanted::chat(Dialect::Gemini)
        };
        let body = Bytes::from_static(b"{\"contents\":\n[]}");
        let stored = Parcel::of(&wanted, &headers, body.clone()).unwrap().to_bytes();
        assert!(!String::from_utf8_lossy(&stored).contains("sk-a"));
        let opened = Parcel::from_bytes(&stored).unwrap();
        assert_eq!((opened.body, opened.headers.len()), (body, 1));
        assert_eq!(opened.wanted.named, wanted.named);
        assert_eq!((opened.wanted.dialect, opened.wanted.as_array), (Dialect::Gemini, true));
    }

    #[test]
    fn a_price_is_kept_and_what_was_stored_without_one_can_be_read() {
        let parcel = |pin| Parcel {
            pin,
            ..Parcel::of(&Wanted::chat(Dialect::Anthropic), &HeaderMap::new(), Bytes::new())
                .unwrap()
        };
        let pin = Pin::named(("chat-sale", 3), Some(("fx:usd-eur", 1)), 1_250_000);
        let priced = parcel(Some(pin.clone())).to_bytes();
        assert_eq!(Parcel::from_bytes(&priced).unwrap().pin, Some(pin));
        let plain = parcel(None).to_bytes();
        assert!(!String::from_utf8_lossy(&plain).contains("pin"));
        assert_eq!(Parcel::from_bytes(&plain).unwrap().pin, None);
    }

    #[test]
    fn every_endpoint_has_a_name_of_its_own() {
        for pair in STORABLE {
            assert_eq!(endpoint_of(endpoint_name(pair.0, pair.1)), Some(*pair));
        }
    }

    #[test]
    fn what_was_not_stored_here_is_no_call() {
        for bytes in [&b""[..], b"\n", b"{}\nx"] {
            assert!(Parcel::from_bytes(bytes).is_none());
        }
    }
}
