/* Every function that C calls in Python. */
extern "Python" bool pyllama_progress(float progress, void * user_data);
