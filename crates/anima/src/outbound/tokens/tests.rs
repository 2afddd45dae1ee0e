//! Tokens: what is signed, that one fetch serves all, and that a token is renewed early.

use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// A key file and what verifies its signatures.
fn key_file(token_uri: &str) -> (String, Vec<u8>) {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair);
    let base64 = STANDARD.encode(der.unwrap().as_ref());
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{base64}\n-----END PRIVATE KEY-----\n");
    let file = json!({"type": "service_account", "client_email": "a@p.iam",
        "private_key": pem, "private_key_id": "k1", "token_uri": token_uri});
    (file.to_string(), pair.public_key().as_ref().to_vec())
}

/// A token endpoint that counts; its tokens live for an hour.
async fn endpoint(status: &'static str) -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}/token", listener.local_addr().unwrap());
    let count = Arc::new(AtomicU64::new(0));
    let counting = Arc::clone(&count);
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let n = counting.fetch_add(1, Ordering::SeqCst);
            let mut buffer = vec![0; 8192];
            let _read = socket.read(&mut buffer).await.unwrap();
            let body = format!(r#"{{"access_token":"ya29.{n}","expires_in":3600}}"#);
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n", body.len());
            let answer = format!("{head}connection: close\r\n\r\n{body}");
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (uri, count)
}

const POLICY: Policy = Policy { private: true, connect_ms: 5_000 };

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

#[test]
fn a_claim_is_signed_by_the_account() {
    let (file, public) = key_file("https://t/token");
    let account = Account::read(&file).unwrap().unwrap();
    let claim = account.claim(1_000).unwrap();
    let (text, signature) = claim.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public)
        .verify(text.as_bytes(), &signature)
        .unwrap();
    let body = URL_SAFE_NO_PAD.decode(text.split('.').nth(1).unwrap()).unwrap();
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&body["iss"], &body["exp"]), (&json!("a@p.iam"), &json!(4_600)));
    assert!(Account::read("ya29.token").is_none());
    assert!(Account::read("{}").unwrap().is_err());
}

#[tokio::test]
async fn one_fetch_serves_all_and_a_token_is_renewed_early() {
    let (uri, count) = endpoint("200 OK").await;
    let (file, _) = key_file(&uri);
    let outbound = Arc::new(Outbound::new().unwrap());
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (outbound, file) = (Arc::clone(&outbound), file.clone());
        calls.spawn(async move {
            let token = outbound.access_token(POLICY, &file, at(1_000), soon()).await;
            token.unwrap().unwrap().as_str().to_owned()
        });
    }
    while let Some(token) = calls.join_next().await {
        assert_eq!(token.unwrap(), "ya29.0");
    }
    assert_eq!(count.load(Ordering::SeqCst), 1);
    let later = outbound.access_token(POLICY, &file, at(1_000 + 3_299), soon()).await;
    assert_eq!(later.unwrap().unwrap().as_str(), "ya29.0");
    let renewed = outbound.access_token(POLICY, &file, at(1_000 + 3_300), soon()).await;
    assert_eq!(renewed.unwrap().unwrap().as_str(), "ya29.1");
}

#[tokio::test]
async fn a_refused_token_is_forgotten_once_and_another_is_fetched() {
    let (uri, count) = endpoint("200 OK").await;
    let (file, _) = key_file(&uri);
    let outbound = Outbound::new().unwrap();
    let token = async |at_s| {
        let token = outbound.access_token(POLICY, &file, at(at_s), soon()).await;
        token.unwrap().unwrap().as_str().to_owned()
    };
    assert!(!outbound.forget_token(&file, at(1_000)).await, "there is none yet");
    assert_eq!(token(1_000).await, "ya29.0");
    // A call that fetched it itself has nothing better to try.
    assert!(!outbound.forget_token(&file, at(1_000)).await);
    assert!(outbound.forget_token(&file, at(1_010)).await);
    assert_eq!(token(1_010).await, "ya29.1");
    assert!(!outbound.forget_token(&file, at(1_010)).await);
    assert!(!outbound.forget_token("sk-plain", at(2_000)).await);
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_refused_account_is_the_credentials_fault() {
    let (uri, _) = endpoint("401 Unauthorized").await;
    let (file, _) = key_file(&uri);
    let outbound = Outbound::new().unwrap();
    let refused = outbound.access_token(POLICY, &file, at(1_000), soon()).await.unwrap_err();
    assert_eq!(refused.failure, Failure::CredentialRefused);
    assert!(!refused.detail.contains("PRIVATE"), "{}", refused.detail);
}
