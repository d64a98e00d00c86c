//! TLS to the server: rustls with aws-lc-rs, and certificates that are verified.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::misconfigured;
use crate::store::{StoreError, StoreErrorKind};

/// The Mozilla roots, and these PEM files.
pub(super) fn connector(extra_roots: &[Vec<u8>]) -> Result<MakeRustlsConnect, StoreError> {
    let mut roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    let refused = || misconfigured("a root certificate is not readable");
    for pem in extra_roots {
        let before = roots.len();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|_| refused())?;
            roots.add(certificate).map_err(|_| refused())?;
        }
        if roots.len() == before {
            return Err(misconfigured("a root certificate's file holds none"));
        }
    }
    // Named, so that an application's choice of another one is no panic here.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| StoreError::new(StoreErrorKind::Misconfigured, error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}
