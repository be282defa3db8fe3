"""What ends the process when it is done to libllama by hand, as a table; one module for each part.

A case has the number of a row in the list of process killers: H handles and threads, L loading,
C contexts, D batches, M memory, O outputs, S samplers, V text, J chat templates and schemas,
P projectors and their images and sounds, Q and B files and devices, TR training; X is for
combinations found by trying. test_process_killers.py runs them.
"""
