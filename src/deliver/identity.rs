//! Keys, certificates, enrolment.
