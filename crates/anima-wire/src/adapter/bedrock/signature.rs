//! AWS Signature Version 4 of one request.
//!
//! Signs method, path, query, host, date and body for the service `bedrock`, as
//! `docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html` documents it (read November
//! 2026). The time is a parameter. Invariant: the same request at the same second has the same
//! signature, and the secret key is in none of the headers.

use std::fmt::Write as _;

use aws_lc_rs::{digest, hmac};
use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName};

use crate::adapter::{SecretUnusable, Sent, in_path, secure};

const SERVICE: &str = "bedrock";

/// The region of an endpoint that does not say its own.
const REGION_DEFAULT: &str = "us-east-1";

/// What signs.
pub(super) struct Keys<'a> {
    id: &'a str,
    secret: &'a str,
    token: Option<&'a str>,
}

impl<'a> Keys<'a> {
    /// Reads `ID:SECRET` or `ID:SECRET:TOKEN`. `None` for anything else, which is an API key.
    pub(super) fn read(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(3, ':');
        let (id, secret) = (parts.next()?, parts.next()?);
        Some(Self { id, secret, token: parts.next() })
    }

    /// Puts date, token and signature into the headers.
    pub(super) fn sign(
        &self,
        headers: &mut HeaderMap,
        sent: &Sent<'_>,
    ) -> Result<(), SecretUnusable> {
        let host = sent.uri.authority().ok_or(SecretUnusable)?.as_str();
        let region = sent.region.or_else(|| region(host)).unwrap_or(REGION_DEFAULT);
        let at = stamp(sent.at_s).ok_or(SecretUnusable)?;
        let (authorization, token) = self.authorization(sent, host, (region, SERVICE), &at);
        secure(headers, HeaderName::from_static("x-amz-date"), &at)?;
        if let Some(token) = token {
            secure(headers, HeaderName::from_static("x-amz-security-token"), token)?;
        }
        secure(headers, AUTHORIZATION, &authorization)
    }

    fn authorization(
        &self,
        sent: &Sent<'_>,
        host: &str,
        (region, service): (&str, &str),
        at: &str,
    ) -> (String, Option<&'a str>) {
        let mut lines = format!("host:{host}\nx-amz-date:{at}\n");
        let mut names = "host;x-amz-date".to_owned();
        if let Some(token) = self.token {
            lines.extend(["x-amz-security-token:", token, "\n"]);
            names.push_str(";x-amz-security-token");
        }
        // What is encoded in the path is encoded once more.
        let path: Vec<String> = sent.uri.path().split('/').map(in_path).collect();
        let path = path.join("/");
        let query = sent.uri.query().unwrap_or_default();
        let body = hash(sent.body.iter().map(AsRef::as_ref));
        let canonical = format!("POST\n{path}\n{query}\n{lines}\n{names}\n{body}");
        let day = at.get(..8).unwrap_or_default();
        let scope = format!("{day}/{region}/{service}/aws4_request");
        let canonical = hash([canonical.as_bytes()].into_iter());
        let text = format!("AWS4-HMAC-SHA256\n{at}\n{scope}\n{canonical}");
        let mut key = keyed(format!("AWS4{}", self.secret).as_bytes(), day);
        for part in [region, service, "aws4_request"] {
            key = keyed(key.as_ref(), part);
        }
        let signature = hex(keyed(key.as_ref(), &text).as_ref());
        let id = self.id;
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={names}, \
             Signature={signature}"
        );
        (authorization, self.token)
    }
}

/// `bedrock-runtime.{region}.amazonaws.com`.
fn region(host: &str) -> Option<&str> {
    let mut labels = host.split('.');
    labels.next().filter(|first| first.starts_with("bedrock"))?;
    labels.next().filter(|region| region.contains('-'))
}

/// `20150830T123600Z`.
fn stamp(at_s: i64) -> Option<String> {
    let at = jiff::Timestamp::from_second(at_s).ok()?;
    Some(at.strftime("%Y%m%dT%H%M%SZ").to_string())
}

fn keyed(key: &[u8], text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
}

fn hash<'b>(parts: impl Iterator<Item = &'b [u8]>) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    parts.for_each(|part| context.update(part));
    hex(context.finish().as_ref())
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        if write!(text, "{byte:02x}").is_err() {
            // Writing to a string does not fail.
            return text;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2015-08-30T12:36:00Z, the instant of AWS's own test suite.
    const AT_S: i64 = 1_440_938_160;

    #[test]
    fn a_signature_is_that_of_the_vendors_test_suite() {
        let keys = Keys::read("AKIDEXAMPLE:wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY").unwrap();
        let uri = "https://example.amazonaws.com/".parse().unwrap();
        let sent = Sent { uri: &uri, body: &[], at_s: AT_S, region: None };
        let at = stamp(AT_S).unwrap();
        let scope = ("us-east-1", "service");
        let (found, _) = keys.authorization(&sent, "example.amazonaws.com", scope, &at);
        let expected = "AWS4-HMAC-SHA256 \
            Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
            SignedHeaders=host;x-amz-date, \
            Signature=5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b";
        assert_eq!(found, expected);
    }

    #[test]
    fn a_temporary_key_is_told_and_signed_and_the_secret_is_not_shown() {
        let uri = "https://bedrock-runtime.eu-west-1.amazonaws.com/model/a%3A0/invoke";
        let uri = uri.parse().unwrap();
        let mut headers = HeaderMap::new();
        let body = [bytes::Bytes::from_static(b"{}")];
        let sent = Sent { uri: &uri, body: &body, at_s: AT_S, region: None };
        Keys::read("ID:SECRET:TOKEN==").unwrap().sign(&mut headers, &sent).unwrap();
        assert_eq!(headers["x-amz-security-token"], "TOKEN==");
        let told = headers[AUTHORIZATION].to_str().unwrap();
        assert!(told.contains("ID/20150830/eu-west-1/bedrock/aws4_request"), "{told}");
        assert!(told.contains("x-amz-security-token") && !told.contains("SECRET"), "{told}");
        assert!(headers[AUTHORIZATION].is_sensitive());
        assert!(Keys::read("ABSKabc").is_none());
    }
}
