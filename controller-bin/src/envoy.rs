//! What concerns Envoy as a data plane: its configuration as bytes for ADS.
pub mod encode;
