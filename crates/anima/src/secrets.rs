//! Sealing, hashing and minting of secrets.
//!
//! Provider credentials are sealed with AES-256-GCM under a data key of their own, wrapped by the
//! master key; the context (table, row, credential) is authenticated, so a sealed value cannot be
//! moved to another row. Keys and admin tokens are stored only as HMAC-SHA-256 under peppers
//! derived from the master key: right for secrets of 256 random bits (SPEC 13, `reliability` 7.2).
//! Invariant: no type here shows a secret in `Debug`.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::Zeroizing;

use crate::clock::fill;

/// Why a sealed value could not be opened or a master key not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The master key is not 32 bytes in base64 or hex.
    #[error("expected 32 bytes in base64 or hex")]
    MasterKey,
    /// Another master key, another row, or damaged bytes.
    #[error("the sealed value does not open: it was written under another master key or moved")]
    Sealed,
}

/// Everything that needs the master key.
pub struct Secrets {
    wrapping: LessSafeKey,
    keys: hmac::Key,
    tokens: hmac::Key,
    requests: hmac::Key,
    webhooks: hmac::Key,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets")
    }
}

/// Length of a GCM nonce.
const NONCE_BYTES: usize = 12;
/// Length of a data key, of a wrapped data key (with its tag), and of its nonce, in that order.
const DATA_KEY_BYTES: usize = 32;
const WRAPPED_BYTES: usize = DATA_KEY_BYTES + 16;

/// A new key of an app, in clear this once.
pub struct MintedKey {
    /// The public id.
    pub kid: String,
    /// The whole key, `sk-<kid>-<secret>`.
    pub text: Zeroizing<String>,
    /// What is stored.
    pub hash: [u8; 32],
}

impl fmt::Debug for MintedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MintedKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl Secrets {
    /// Derives what is needed from a master key of 32 bytes.
    ///
    /// # Errors
    /// [`Error::MasterKey`] when the cipher refuses the key.
    pub fn new(master: &[u8; 32]) -> Result<Self, Error> {
        let derive = |label: &str| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, master);
            let tag = hmac::sign(&key, label.as_bytes());
            Zeroizing::new(tag.as_ref().to_vec())
        };
        let wrapping = cipher(&derive("anima/wrap/1")).ok_or(Error::MasterKey)?;
        Ok(Self {
            wrapping,
            keys: hmac::Key::new(hmac::HMAC_SHA256, &derive("anima/user_api_key/1")),
            tokens: hmac::Key::new(hmac::HMAC_SHA256, &derive("anima/admin_token/1")),
            requests: hmac::Key::new(hmac::HMAC_SHA256, &derive("anima/idempotency/1")),
            webhooks: hmac::Key::new(hmac::HMAC_SHA256, &derive("anima/webhook/1")),
        })
    }

    /// Seals a secret for one place, named by `context`.
    ///
    /// # Errors
    /// [`Error::Sealed`] when the cipher fails, which takes a defect.
    pub fn seal(&self, context: &str, plain: &[u8]) -> Result<String, Error> {
        Ok(BASE64.encode(self.seal_bytes(context, plain)?))
    }

    /// The same without base64, for what is large.
    ///
    /// # Errors
    /// [`Error::Sealed`] when the cipher fails, which takes a defect.
    pub fn seal_bytes(&self, context: &str, plain: &[u8]) -> Result<Vec<u8>, Error> {
        let mut data_key = Zeroizing::new([0_u8; DATA_KEY_BYTES]);
        fill(data_key.as_mut());
        let mut sealed = encrypt(&self.wrapping, context, data_key.as_ref())?;
        let inner = cipher(data_key.as_ref()).ok_or(Error::Sealed)?;
        sealed.extend(encrypt(&inner, context, plain)?);
        Ok(sealed)
    }

    /// Opens what [`Self::seal`] made for the same place.
    ///
    /// # Errors
    /// [`Error::Sealed`].
    pub fn open(&self, context: &str, sealed: &str) -> Result<Zeroizing<Vec<u8>>, Error> {
        let bytes = BASE64.decode(sealed).ok().ok_or(Error::Sealed)?;
        self.open_bytes(context, &bytes)
    }

    /// Opens what [`Self::seal_bytes`] made for the same place.
    ///
    /// # Errors
    /// [`Error::Sealed`].
    pub fn open_bytes(&self, context: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        let split = NONCE_BYTES + WRAPPED_BYTES;
        let (wrapped, payload) = sealed.split_at_checked(split).ok_or(Error::Sealed)?;
        let data_key = decrypt(&self.wrapping, context, wrapped)?;
        let inner = cipher(&data_key).ok_or(Error::Sealed)?;
        decrypt(&inner, context, payload)
    }

    /// The stored form of a key of an app.
    pub fn hash_key(&self, text: &str) -> [u8; 32] {
        digest(&self.keys, text)
    }

    /// The stored form of an admin token.
    pub fn hash_admin_token(&self, text: &str) -> [u8; 32] {
        digest(&self.tokens, text)
    }

    /// Tells requests apart without keeping them: the stored form of what callers send. Where one
    /// part ends counts.
    pub fn fingerprint(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.requests);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        bytes_of(&context.sign())
    }

    /// What a key's webhooks are signed with, as its owner keeps it (Standard Webhooks). Made from
    /// the key's id, so that nothing is stored.
    pub fn webhook_secret(&self, kid: &str) -> Zeroizing<String> {
        Zeroizing::new(format!("whsec_{}", BASE64.encode(digest(&self.webhooks, kid))))
    }

    /// The signature of a webhook of a key: over id, time in seconds and body.
    pub fn webhook_signature(&self, kid: &str, (id, at_s): (&str, i64), body: &[u8]) -> String {
        let secret = Zeroizing::new(digest(&self.webhooks, kid));
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_ref());
        let mut context = hmac::Context::with_key(&key);
        context.update(format!("{id}.{at_s}.").as_bytes());
        context.update(body);
        format!("v1,{}", BASE64.encode(context.sign()))
    }

    /// Makes a new key: 80 bits of public id, 256 bits of secret.
    pub fn mint_key(&self) -> MintedKey {
        let kid = random_text(16);
        let text = Zeroizing::new(format!("sk-{kid}-{}", random_text(52)));
        let hash = self.hash_key(&text);
        MintedKey { kid, text, hash }
    }

    /// Makes a new admin token of 256 bits.
    pub fn mint_admin_token() -> Zeroizing<String> {
        Zeroizing::new(format!("at-{}", random_text(52)))
    }
}

/// The public id inside a key's text. `None` when the text is not of the form `sk-<kid>-<secret>`.
pub fn kid_of(text: &str) -> Option<&str> {
    let (kid, secret) = text.strip_prefix("sk-")?.split_once('-')?;
    let plain =
        |s: &str| !s.is_empty() && s.len() <= 64 && s.bytes().all(|b| b.is_ascii_alphanumeric());
    (plain(kid) && plain(secret)).then_some(kid)
}

/// Whether two hashes are equal, in constant time.
pub fn same_hash(a: &[u8; 32], b: &[u8; 32]) -> bool {
    use subtle::ConstantTimeEq as _;
    a.ct_eq(b).into()
}

/// Reads a master key: 32 bytes in base64 or hex.
///
/// # Errors
/// [`Error::MasterKey`].
pub fn parse_master_key(text: &str) -> Result<Zeroizing<[u8; 32]>, Error> {
    let text = text.trim();
    let bytes = if text.len() == 64 { from_hex(text) } else { BASE64.decode(text).ok() };
    let bytes = Zeroizing::new(bytes.ok_or(Error::MasterKey)?);
    <[u8; 32]>::try_from(bytes.as_slice()).map(Zeroizing::new).ok().ok_or(Error::MasterKey)
}

/// A fresh master key, in base64.
pub fn mint_master_key() -> Zeroizing<String> {
    let mut bytes = Zeroizing::new([0_u8; 32]);
    fill(bytes.as_mut());
    Zeroizing::new(BASE64.encode(bytes.as_ref()))
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let pairs = text.as_bytes().chunks_exact(2);
    pairs.map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.last()?)?)).collect()
}

/// Lower-case base 32 without look-alikes: 5 bits a letter.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

fn random_text(letters: usize) -> String {
    let mut bytes = vec![0_u8; letters];
    fill(&mut bytes);
    bytes.iter().filter_map(|b| ALPHABET.get(usize::from(b & 31))).map(|b| char::from(*b)).collect()
}

fn digest(key: &hmac::Key, text: &str) -> [u8; 32] {
    bytes_of(&hmac::sign(key, text.as_bytes()))
}

fn bytes_of(tag: &hmac::Tag) -> [u8; 32] {
    let mut out = [0_u8; 32];
    for (to, from) in out.iter_mut().zip(tag.as_ref()) {
        *to = *from;
    }
    out
}

fn cipher(key: &[u8]) -> Option<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, key).ok().map(LessSafeKey::new)
}

fn encrypt(key: &LessSafeKey, context: &str, plain: &[u8]) -> Result<Vec<u8>, Error> {
    let mut nonce = [0_u8; NONCE_BYTES];
    fill(&mut nonce);
    let mut body = plain.to_vec();
    key.seal_in_place_append_tag(
        Nonce::assume_unique_for_key(nonce),
        Aad::from(context),
        &mut body,
    )
    .ok()
    .ok_or(Error::Sealed)?;
    let mut sealed = nonce.to_vec();
    sealed.append(&mut body);
    Ok(sealed)
}

fn decrypt(key: &LessSafeKey, context: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
    let (nonce, body) = sealed.split_at_checked(NONCE_BYTES).ok_or(Error::Sealed)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok().ok_or(Error::Sealed)?;
    let mut body = Zeroizing::new(body.to_vec());
    let length = key
        .open_in_place(nonce, Aad::from(context), body.as_mut_slice())
        .ok()
        .ok_or(Error::Sealed)?
        .len();
    body.truncate(length);
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets() -> Secrets {
        Secrets::new(&[7; 32]).unwrap()
    }

    #[test]
    fn a_sealed_secret_opens_only_in_its_own_place_and_under_its_own_key() {
        let sealed = secrets().seal("channel|a|main", b"s3cret").unwrap();
        assert_eq!(secrets().open("channel|a|main", &sealed).unwrap().as_slice(), b"s3cret");
        assert_eq!(secrets().open("channel|b|main", &sealed).err(), Some(Error::Sealed));
        let other = Secrets::new(&[8; 32]).unwrap();
        assert_eq!(other.open("channel|a|main", &sealed).err(), Some(Error::Sealed));
        assert_eq!(secrets().open("channel|a|main", "AAAA").err(), Some(Error::Sealed));
    }

    #[test]
    fn requests_are_told_apart_by_their_parts_and_by_the_master_key() {
        let print = |parts: &[&[u8]]| secrets().fingerprint(parts);
        assert_eq!(print(&[b"ab", b"c"]), print(&[b"ab", b"c"]));
        assert_ne!(print(&[b"ab", b"c"]), print(&[b"a", b"bc"]));
        assert_ne!(print(&[b"ab"]), Secrets::new(&[8; 32]).unwrap().fingerprint(&[b"ab"]));
    }

    #[test]
    fn a_minted_key_names_its_public_id() {
        let minted = secrets().mint_key();
        assert_eq!(kid_of(&minted.text), Some(minted.kid.as_str()));
        assert!(same_hash(&secrets().hash_key(&minted.text), &minted.hash));
        assert!(!format!("{minted:?}").contains(minted.text.as_str()));
    }

    #[test]
    fn what_is_not_a_key_has_no_public_id() {
        for text in ["", "sk-", "sk-abc", "sk--x", "sk-a-", "xx-a-b", "sk-a b-c", "sk-a-b-c"] {
            assert_eq!(kid_of(text), None, "{text}");
        }
    }

    #[test]
    fn a_master_key_reads_from_base64_and_hex() {
        assert!(parse_master_key(&mint_master_key()).is_ok());
        assert_eq!(parse_master_key(&"ab".repeat(32)).unwrap().first(), Some(&0xab));
        assert_eq!(parse_master_key("short").err(), Some(Error::MasterKey));
    }
}
