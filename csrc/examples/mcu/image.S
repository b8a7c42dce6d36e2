/* The edge image in flash: EDGE_FILE is given on the command line. */
    .section .model, "a", %progbits
    .balign 64
    .global model_image, model_image_end
model_image:
    .incbin EDGE_FILE
model_image_end:
