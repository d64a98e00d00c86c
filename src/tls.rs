//! The TLS configuration of every connection: rustls with aws-lc-rs, and certificates that are always verified.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::{ClientConfig, RootCertStore};

/// Returns a configuration that trusts the Mozilla root programme and the certificates of these PEM files.
pub(crate) fn client_config(extra_roots: &[Vec<u8>]) -> Result<ClientConfig, TlsError> {
    let mozilla = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    trusting(mozilla, extra_roots)
}

/// Returns a configuration that trusts the certificates of this PEM file only.
#[cfg(feature = "postgres")]
pub(crate) fn client_config_of(roots: &[u8]) -> Result<ClientConfig, TlsError> {
    trusting(RootCertStore::empty(), &[roots])
}

fn trusting(mut roots: RootCertStore, more: &[impl AsRef<[u8]>]) -> Result<ClientConfig, TlsError> {
    for file in more {
        let before = roots.len();
        for certificate in CertificateDer::pem_slice_iter(file.as_ref()) {
            let certificate = certificate.map_err(TlsError::Pem)?;
            roots.add(certificate).map_err(TlsError::Root)?;
        }
        if roots.len() == before {
            return Err(TlsError::NoRoot);
        }
    }
    // Explicit: the default provider of the process may be another one, or missing.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Provider)?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// The TLS configuration could not be built.
#[derive(Debug)]
pub(crate) enum TlsError {
    /// A file is not valid PEM.
    Pem(pem::Error),
    /// A PEM block is not a certificate.
    Root(rustls::Error),
    /// A file contains no certificate.
    NoRoot,
    /// The provider cannot be set up.
    Provider(rustls::Error),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pem(_) | Self::Root(_) => "a root certificate cannot be read",
            Self::NoRoot => "the file of root certificates contains none",
            Self::Provider(_) => "the TLS provider cannot be set up",
        })
    }
}

impl Error for TlsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Pem(source) => Some(source),
            Self::Root(source) | Self::Provider(source) => Some(source),
            Self::NoRoot => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_readable_certificate_is_refused() {
        let without: [&[u8]; 2] = [b"", b"not a certificate"];
        for file in without {
            let error = client_config(&[file.to_vec()]).unwrap_err();
            assert!(matches!(error, TlsError::NoRoot), "{error:?}");
        }
        for content in ["AAAA", "!!!!"] {
            let file =
                format!("-----BEGIN CERTIFICATE-----\n{content}\n-----END CERTIFICATE-----\n");
            let error = client_config(&[file.into()]).unwrap_err();
            assert_eq!(error.to_string(), "a root certificate cannot be read");
            assert!(error.source().is_some());
        }
    }

    #[test]
    fn every_file_must_contain_a_certificate() {
        let error = client_config(&[Vec::new(), Vec::new()]).unwrap_err();
        assert!(matches!(error, TlsError::NoRoot), "{error:?}");
        assert!(client_config(&[]).is_ok());
    }
}
