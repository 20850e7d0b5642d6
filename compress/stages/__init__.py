"""What each stage of the pipeline does, a module each; its key has the code of all that the module imports.

So nothing that a stage needs may come from elsewhere, but for its method, whose code is in the key as well.
What a stage may never need, such as a loaded source, it is given as a function.
"""
