//! The sessions of this master's nodes: ordered assignments down, heartbeats and writes up, streams on request.
//! (Being written by the integrator right now, as is leader/: wire it, do not write it again. Public face: `Sessions`.)
