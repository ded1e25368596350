"""Studio: finetune and harden image models; the engine, which knows methods only by their contract."""
