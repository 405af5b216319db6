//! SPIFFE IDs and trust domains (SPIFFE-ID specification, sections 2.1 to 2.4).
use std::{fmt, str::FromStr};

/// Why a text is no SPIFFE ID or trust domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdError {
    _private: (),
}
impl fmt::Display for IdError {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}
impl std::error::Error for IdError {}

/// A trust domain name: 1 to 255 of `a-z 0-9 . - _`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(String);

impl TrustDomain {
    /// The name, without scheme.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl FromStr for TrustDomain {
    type Err = IdError;
    fn from_str(_: &str) -> Result<Self, IdError> {
        todo!()
    }
}
impl Default for TrustDomain {
    /// `cluster.local`
    fn default() -> Self {
        Self("cluster.local".to_owned())
    }
}
impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A SPIFFE ID of a workload: scheme `spiffe`, trust domain, a path of one or more segments.
/// At most 2048 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    text: String,
    path_at: usize,
}

/// What a SPIFFE ID of the form `spiffe://TD/ns/NAMESPACE/sa/NAME` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ServiceAccount<'a> {
    /// The namespace.
    pub namespace: &'a str,
    /// The name of the ServiceAccount.
    pub name: &'a str,
}

impl SpiffeId {
    /// The whole ID.
    pub fn as_str(&self) -> &str {
        &self.text
    }
    /// The trust domain's name.
    pub fn trust_domain(&self) -> &str {
        todo!()
    }
    /// The path, with its leading slash.
    pub fn path(&self) -> &str {
        todo!()
    }
    /// The ServiceAccount that it names, if it has exactly that form.
    pub fn service_account(&self) -> Option<ServiceAccount<'_>> {
        todo!()
    }
    /// `spiffe://TD/ns/NAMESPACE/sa/NAME`
    ///
    /// # Errors
    /// A namespace or name that is no path segment.
    pub fn for_service_account(trust_domain: &TrustDomain, namespace: &str, name: &str) -> Result<Self, IdError> {
        let _ = (trust_domain, namespace, name);
        todo!()
    }
}
impl FromStr for SpiffeId {
    type Err = IdError;
    fn from_str(_: &str) -> Result<Self, IdError> {
        todo!()
    }
}
impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
