//! The certificate of the server for TLS, read again when its files change.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, ServerConfig};

use super::BoxError;

/// The pause between two reads of the files. A renewal replaces them weeks before the certificate expires.
const READ_EVERY: Duration = Duration::from_secs(1);

/// A certificate and its key in two PEM files.
///
/// The files are read again and again, so a renewed certificate needs no restart and no signal, which would drain the
/// server. Not their times but their contents are compared: a mounted secret that is exchanged may keep its times.
pub(crate) struct Certificate {
    pair: Pair,
    reader: Reader,
}

/// The pair in the files, or the last valid one: in the middle of a renewal the two may not fit.
struct Pair(Mutex<Arc<CertifiedKey>>);

struct Reader {
    files: Files,
    provider: Arc<CryptoProvider>,
    /// Of the files when they were read last, whether or not they were valid. A file that cannot be read has none.
    digest: Option<[u8; 32]>,
}

struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

impl Certificate {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// Returns an error that names the setting and the file, if one cannot be read or they do not belong together.
    pub(crate) fn read(certificate: &str, key: &str) -> Result<Self, String> {
        let files = Files {
            certificate: certificate.into(),
            key: key.into(),
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let (certificate, key) = files.read()?;
        let pair = files.parse(&certificate, &key, &provider)?;
        Ok(Self {
            pair: Pair(Mutex::new(Arc::new(pair))),
            reader: Reader {
                files,
                provider,
                digest: Some(digest(&certificate, &key)),
            },
        })
    }

    /// Returns the acceptor of TLS 1.2 and 1.3, with HTTP/2 and HTTP/1.1. The files are read until it is dropped.
    pub(crate) fn acceptor(self) -> Result<TlsAcceptor, BoxError> {
        let Self { pair, mut reader } = self;
        let pair = Arc::new(pair);
        let shown = Arc::downgrade(&pair);
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&reader.provider))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(pair);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // A file on a network that has gone may never be read to its end. So neither handshakes nor the end of the program wait
        // for this thread, as they would for the runtime's.
        let thread = thread::Builder::new().name("certificate".to_owned());
        thread.spawn(move || {
            loop {
                thread::sleep(READ_EVERY);
                let read = reader.read();
                let Some(shown) = shown.upgrade() else {
                    return;
                };
                if let Some(pair) = read {
                    *shown.lock() = Arc::new(pair);
                }
            }
        })?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

impl Reader {
    /// Returns the pair in the files if it is another one, and valid.
    fn read(&mut self) -> Option<CertifiedKey> {
        let read = self.files.read();
        let digest = read
            .as_ref()
            .ok()
            .map(|(certificate, key)| digest(certificate, key));
        // A fault is logged when it begins.
        if digest == self.digest {
            return None;
        }
        self.digest = digest;
        let parsed = read
            .and_then(|(certificate, key)| self.files.parse(&certificate, &key, &self.provider));
        match parsed {
            Ok(pair) => {
                tracing::info!("the certificate was read again");
                Some(pair)
            }
            Err(error) => {
                tracing::warn!(error, "the certificate was not replaced");
                None
            }
        }
    }
}

impl Pair {
    fn lock(&self) -> MutexGuard<'_, Arc<CertifiedKey>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResolvesServerCert for Pair {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.lock()))
    }
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair").finish_non_exhaustive()
    }
}

impl Files {
    fn read(&self) -> Result<(Vec<u8>, Vec<u8>), String> {
        let read = |setting: &str, path: &PathBuf| {
            fs::read(path).map_err(|error| format!("{setting}={}: {error}", path.display()))
        };
        Ok((
            read("TLS_CERTIFICATE", &self.certificate)?,
            read("TLS_PRIVATE_KEY", &self.key)?,
        ))
    }

    fn parse(
        &self,
        certificate: &[u8],
        key: &[u8],
        provider: &CryptoProvider,
    ) -> Result<CertifiedKey, String> {
        let wrong = |setting: &str, path: &PathBuf, why: &dyn fmt::Display| {
            format!("{setting}={}: {why}", path.display())
        };
        let of_certificate =
            |why: &dyn fmt::Display| wrong("TLS_CERTIFICATE", &self.certificate, why);
        let of_key = |why: &dyn fmt::Display| wrong("TLS_PRIVATE_KEY", &self.key, why);
        let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate)
            .collect::<Result<_, _>>()
            .map_err(|error| of_certificate(&error))?;
        if chain.is_empty() {
            return Err(of_certificate(&"no certificate in PEM"));
        }
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| of_key(&"no private key in PEM, or an encrypted one"))?;
        CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                of_key(&"not the key of the certificate in TLS_CERTIFICATE")
            }
            error => of_certificate(&error),
        })
    }
}

fn digest(certificate: &[u8], key: &[u8]) -> [u8; 32] {
    // Each has its own digest: no file of one is a piece of the other.
    let mut digest = Sha256::new();
    digest.update(Sha256::digest(certificate));
    digest.update(Sha256::digest(key));
    digest.finalize().into()
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").finish_non_exhaustive()
    }
}
