//! Tests of the session as a whole.
