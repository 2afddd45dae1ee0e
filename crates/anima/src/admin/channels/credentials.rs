//! A channel's credentials: sealed on the way in, kept when not written again, never read back.
//!
//! Invariant: nothing that leaves this file towards the store has a `secret`, and nothing that
//! leaves it towards a caller has anything but a `code`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use anima_core::config::Credential;

use crate::admin::problem::{Code, Problem};
use crate::live::credential_context;
use crate::secrets::Secrets;

/// Longest secret. A service account's key file has 2.4 KiB.
const SECRET_BYTES_MAX: usize = 16 * 1024;

/// Refuses what only the store may write: a sealed secret could have been taken from elsewhere.
///
/// # Errors
/// The path of the member.
pub(super) fn vet(given: Option<&Value>) -> Result<(), Problem> {
    let entries = given.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    match entries.iter().position(|entry| entry.get("sealed").is_some()) {
        Some(n) => {
            let detail = "is not a member here: expected `code` or `secret`";
            let member = format!("credentials[{n}].sealed");
            Err(Problem::member(Code::UnknownMember, member, detail))
        }
        None => Ok(()),
    }
}

/// The sealed secrets of a stored channel, by code.
pub(super) fn stored(body: &Value) -> BTreeMap<String, String> {
    let entries = body.get("credentials").and_then(Value::as_array);
    let entries = entries.map(Vec::as_slice).unwrap_or_default();
    let pair = |entry: &Value| {
        let code = entry.get("code")?.as_str()?;
        Some((code.to_owned(), entry.get("sealed")?.as_str()?.to_owned()))
    };
    entries.iter().filter_map(pair).collect()
}

/// Seals what was written and keeps what was not written again.
///
/// # Errors
/// A code that is none; no secret where none is stored; a secret that is empty or too long.
pub(super) fn seal(
    secrets: &Secrets,
    channel: &str,
    credentials: &mut [Credential],
    stored: &BTreeMap<String, String>,
) -> Result<(), Problem> {
    for (n, credential) in credentials.iter_mut().enumerate() {
        if !is_name(&credential.code) {
            let expected = "1 to 64 of A-Z a-z 0-9 . _ : -";
            return Err(Problem::invalid(format!("credentials[{n}].code"), expected));
        }
        let member = format!("credentials[{n}].secret");
        let kept = credential.sealed.take().or_else(|| stored.get(&credential.code).cloned());
        let sealed = match (credential.secret.take().map(Zeroizing::new), kept) {
            (Some(secret), _) if secret.is_empty() || secret.len() > SECRET_BYTES_MAX => {
                return Err(Problem::invalid(member, "a text of 1 to 16384 bytes"));
            }
            // Written again as it is: nothing changes, so that what is declared can be compared.
            (Some(secret), Some(kept))
                if is_sealed_in(secrets, (channel, credential), &secret, &kept) =>
            {
                kept
            }
            (Some(secret), _) => {
                let context = credential_context(channel, &credential.code);
                let sealed = secrets.seal(&context, secret.as_bytes());
                sealed.map_err(|error| Problem::new(Code::Internal, error.to_string()))?
            }
            (None, Some(sealed)) => sealed,
            (None, None) => {
                let detail = "is required: none is stored for this code at this address";
                return Err(Problem::member(Code::InvalidMember, member, detail));
            }
        };
        credential.sealed = Some(sealed);
    }
    Ok(())
}

/// Whether `kept` is the seal of that very secret.
fn is_sealed_in(
    secrets: &Secrets,
    (channel, credential): (&str, &Credential),
    secret: &str,
    kept: &str,
) -> bool {
    let context = credential_context(channel, &credential.code);
    secrets.open(&context, kept).is_ok_and(|opened| opened.as_slice() == secret.as_bytes())
}

/// Whether a code can stand in a log line and a metric's label.
fn is_name(code: &str) -> bool {
    let letter = |b: u8| b.is_ascii_alphanumeric() || b"._:-".contains(&b);
    (1..=64).contains(&code.len()) && code.bytes().all(letter)
}

/// Leaves nothing of a body's credentials but their codes.
pub(crate) fn veil(body: &mut Map<String, Value>) {
    let Some(entries) = body.get_mut("credentials").and_then(Value::as_array_mut) else {
        return;
    };
    for entry in entries {
        *entry = json!({ "code": entry.get("code").cloned().unwrap_or_default() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(code: &str, secret: Option<&str>) -> Credential {
        Credential { code: code.to_owned(), secret: secret.map(str::to_owned), sealed: None }
    }

    #[test]
    fn a_written_secret_is_sealed_for_its_place_and_an_unwritten_one_is_kept() {
        let secrets = Secrets::new(&[7; 32]).unwrap();
        let stored = BTreeMap::from([("old".to_owned(), "kept".to_owned())]);
        let mut written = [credential("new", Some("s3cret")), credential("old", None)];
        seal(&secrets, "up", &mut written, &stored).unwrap();
        assert!(written.iter().all(|c| c.secret.is_none()));
        assert_eq!(written[1].sealed.as_deref(), Some("kept"));
        let sealed = written[0].sealed.as_deref().unwrap();
        assert_eq!(secrets.open("channel|up|new", sealed).unwrap().as_slice(), b"s3cret");
    }

    #[test]
    fn a_credential_needs_a_secret_once() {
        let secrets = Secrets::new(&[7; 32]).unwrap();
        for entry in [credential("a", None), credential("a", Some(""))] {
            let refused = seal(&secrets, "up", &mut [entry], &BTreeMap::new()).err().unwrap();
            assert_eq!(refused.member.as_deref(), Some("credentials[0].secret"));
        }
    }

    #[test]
    fn only_codes_are_shown() {
        let mut body = Map::new();
        body.insert("credentials".into(), json!([{"code": "a", "sealed": "x", "secret": "y"}, 5]));
        veil(&mut body);
        assert_eq!(body["credentials"], json!([{"code": "a"}, {"code": null}]));
    }

    #[test]
    fn a_sealed_secret_cannot_be_written() {
        let given = json!([{"code": "a", "secret": "s"}, {"code": "b", "sealed": "stolen"}]);
        let refused = vet(Some(&given)).err().unwrap();
        assert_eq!(refused.member.as_deref(), Some("credentials[1].sealed"));
    }
}
