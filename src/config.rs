//! Assembles the modules' Configs.
