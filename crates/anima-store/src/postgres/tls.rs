//! TLS to PostgreSQL, by `sslmode`.
//!
//! `disable` uses none. `prefer`, the default, encrypts when the server can and trusts any
//! certificate, as libpq does: whoever can forge one can also say that the server has no TLS.
//! `require`, `verify-ca` and `verify-full` all verify the chain and the name, against
//! `sslrootcert` (a PEM file) or the web's roots. That is stricter than libpq, never laxer.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::database::OpenError;

/// Where the roots of trust are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// The web's.
    Web,
    /// Those of a PEM file.
    File(String),
}

/// Takes what the driver does not know out of a URL: `sslrootcert`, and the strict modes, which are
/// its `require`.
pub(super) fn split(url: &str) -> (String, Trust) {
    let Some((head, query)) = url.split_once('?') else {
        return (url.to_owned(), Trust::Web);
    };
    let mut trust = Trust::Web;
    let mut kept = Vec::new();
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some(("sslrootcert", path)) => {
                trust = Trust::File(path.replace("%2F", "/").replace("%2f", "/"));
            }
            Some(("sslmode", "verify-ca" | "verify-full")) => kept.push("sslmode=require"),
            _ => kept.push(pair),
        }
    }
    let separator = if kept.is_empty() { "" } else { "?" };
    (format!("{head}{separator}{}", kept.join("&")), trust)
}

/// Makes the connector for a configuration's mode.
///
/// # Errors
/// [`OpenError::Unreachable`] when the roots cannot be read.
pub(super) fn connector(
    config: &tokio_postgres::Config,
    trust: &Trust,
) -> Result<MakeRustlsConnect, OpenError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| OpenError::Unreachable(e.to_string()))?;
    let verifies = matches!(trust, Trust::File(_)) || config.get_ssl_mode() == SslMode::Require;
    let client = if verifies {
        builder.with_root_certificates(roots(trust)?).with_no_client_auth()
    } else {
        let any = Arc::new(AnyCertificate(provider));
        builder.dangerous().with_custom_certificate_verifier(any).with_no_client_auth()
    };
    Ok(MakeRustlsConnect::new(client))
}

fn roots(trust: &Trust) -> Result<RootCertStore, OpenError> {
    let mut store = RootCertStore::empty();
    let Trust::File(path) = trust else {
        store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        return Ok(store);
    };
    let failed = |e: &dyn std::fmt::Display| {
        OpenError::Unreachable(format!("failed to read sslrootcert {path}: {e}"))
    };
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| failed(&e))? {
        let certificate = certificate.map_err(|e| failed(&e))?;
        store.add(certificate).map_err(|e| failed(&e))?;
    }
    if store.is_empty() { Err(failed(&"it holds no certificate")) } else { Ok(store) }
}

/// Accepts any certificate whose owner holds its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strict_modes_are_the_drivers_require() {
        let (url, trust) = split("postgres://u@h/d?sslmode=verify-full&connect_timeout=3");
        assert_eq!(url, "postgres://u@h/d?sslmode=require&connect_timeout=3");
        assert_eq!(trust, Trust::Web);
    }

    #[test]
    fn own_roots_are_taken_out_of_the_url() {
        let (url, trust) = split("postgres://u@h/d?sslrootcert=%2Fetc%2Fca.pem");
        assert_eq!(url, "postgres://u@h/d");
        assert_eq!(trust, Trust::File("/etc/ca.pem".to_owned()));
    }

    #[test]
    fn a_missing_root_file_is_named() {
        let config = "postgres://u@h/d".parse().unwrap();
        let trust = Trust::File("/nowhere/ca.pem".to_owned());
        let error = connector(&config, &trust).err().unwrap().to_string();
        assert!(error.contains("/nowhere/ca.pem"), "{error}");
    }
}
