//! Telling when files change.
mod watch;

pub(crate) use self::watch::Watch;
