mod centre;
mod delivery;
mod enrolment;
mod refusals;
mod wires;
